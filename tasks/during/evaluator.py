"""Scores a training's checkpoints while it trains, in processes beside it; whatever befalls one, training goes on.

The checkpoints that wait when a process begins are scored by this one, because its start takes as long as the scores of
a small model. One that a process failed at is tried again alone.

The checkpoints are those of the plan's ``during.every``. Each is held by hard links from the moment it is seen until it
is scored, and the best so far for good if the best is published. ``evaluations.jsonl`` says what is scored already,
also to a run that was killed in between.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.during.device import NICE, beside, own_device
from tasks.during.held import held_steps, hold
from tasks.process.outcome import read_outcome
from tasks.process.process import Process, started
from tasks.ui.artifacts import Logger
from tasks.ui.scores import told
from titanflow.common.errors import ConfigError, TitanflowError
from titanflow.planning.evaluation.during import MODULE
from titanflow.planning.launch import by_hand
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.checkpoints import flaw, step_folders
from titanflow.runs.contract import RESULT_FILE, RUN_FILE
from titanflow.runs.errors import ERROR_FILE
from titanflow.runs.metrics import EVALUATIONS_FILE, append_record, read_metrics
from titanflow.runs.results import EvaluateResult
from titanflow.runs.scores.best import best_checkpoint, kept_checkpoint

STAGE = "evaluate"
TRIES = 2
"""How often one checkpoint is tried alone before its failure is noted; bad input is tried once."""
MANY = 3
"""So many waiting checkpoints are worth a warning: each may take its size on the disk. One process scores no more, as
their scores are there when it has ended."""
POLL_SECONDS = 2.0
GRACE_SECONDS = 5.0
"""A scoring that is ended has nothing to save: each task's scores are kept as soon as they are there."""


class During:
    """The scores of one training: call it now and then while that runs, and :meth:`finish` once it has ended."""

    def __init__(self, plan: StagePlan, environment: Mapping[str, str], logger: Logger) -> None:
        assert plan.during is not None
        self.training, self.run = plan.run, plan.during
        self.settings: dict[str, Any] = plan.run.config["during"]
        self.file = self.training.folder / EVALUATIONS_FILE
        self._environment, self._logger = environment, logger
        self._done = {one["step"] for one in read_metrics(self.file) if self._is_asked(one)}
        self._best_by = plan.best
        self._waiting = {step: path for step, path in held_steps(self.run.folder).items() if step not in self._done}
        self._release()
        self._tries: dict[int, int] = {}
        self._steps: list[int] = []
        self._process: Process | None = None
        self._open = contextlib.ExitStack()
        self._log_start = 0
        self._is_over = self._complained = False

    def __call__(self) -> None:
        """Holds new checkpoints, and begins to score the oldest that waits unless one is being scored."""
        with self._complaining():
            self._hold_new()
            if self._process is not None and self._process.returncode is not None:
                self._take(self._process.returncode)
            if self._process is None and self._waiting:
                self._begin(self._next())

    def finish(self) -> None:
        """Scores what is left, now on all that the training had."""
        self._is_over = True
        self()
        while self._process is not None:
            self._process.wait(POLL_SECONDS)
            self()
        with self._complaining():
            self._note_missed()

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        """Says once of a full or broken disk that nothing can be scored; the training has its own words for it."""
        try:
            yield
        except OSError as error:
            if not self._complained:
                self._complained = True
                self._logger.warning("%s: its checkpoints can't be scored now: %s", self.training.stage, error)

    def close(self) -> None:
        """Ends a scoring that runs."""
        self._open.close()
        self._process = None

    def _is_asked(self, record: Mapping[str, Any]) -> bool:
        return [record.get("tasks"), record.get("limit")] == [self.run.config["tasks"], self.run.config["limit"]]

    def _is_due(self, step: int) -> bool:
        return step % self.settings["every"] == 0 or step == self.training.config["training"]["steps"]

    def _hold_new(self) -> None:
        for step, path in step_folders(self.training.folder / "checkpoint").items():
            is_new = self._is_due(step) and step not in self._done and step not in self._waiting
            if is_new and not flaw(path) and hold(path, self.run.folder):
                self._waiting[step] = self.run.folder / path.name
                if len(self._waiting) == MANY and not self._is_over:
                    hint = "score them less often (during.every), or fewer items (during.limit)"
                    self._logger.warning("%d checkpoints wait to be scored: %s", MANY, hint)

    def _next(self) -> list[int]:
        """The oldest steps that wait; one that was tried before goes alone, lest it fail others."""
        oldest, *later = sorted(self._waiting)
        if oldest in self._tries:
            return [oldest]
        return [oldest, *(step for step in later if step not in self._tries)][:MANY]

    def _begin(self, steps: list[int]) -> None:
        folder = self.run.folder
        models = {"models": {f"step-{step}": str(self._waiting[step]) for step in steps}}
        run = self.run.model_copy(update={"config": self.run.config | models})
        for name in (ERROR_FILE, RESULT_FILE):
            (folder / name).unlink(missing_ok=True)
        run.write()
        command = [sys.executable, "-m", MODULE, str(folder / RUN_FILE)]
        log = folder / f"{STAGE}.log"
        self._steps = steps
        # Of several, any may end the process: the others haven't been tried then.
        alone = len(steps) == 1
        self._tries |= {step: self._tries.get(step, 0) + alone for step in steps}
        with contextlib.ExitStack() as opening:
            environment = dict(self._environment)
            if not self._is_over:
                environment |= beside(self.training, environment)
                environment |= opening.enter_context(own_device(self.training, self.settings["device"]))
                command = [*NICE, *command]
            with log.open("a", encoding="utf-8") as file:
                self._log_start = file.tell()
                file.write(f"$ {by_hand(command, environment)}\n")
            self._process = opening.enter_context(started(command, log, environment, GRACE_SECONDS))
            self._open = opening.pop_all()

    def _take(self, returncode: int) -> None:
        folder = self.run.folder
        self.close()
        try:
            result = read_outcome(STAGE, folder, returncode, folder / f"{STAGE}.log", self._log_start)
            assert isinstance(result, EvaluateResult)
        except TitanflowError as error:
            for step in self._steps:
                self._failed(step, error)
            return
        for step in self._steps:
            figures = _figures(result, step)
            self._note(step, figures)
            self._logger.info("%s step %d scored: %s", self.training.stage, step, told(figures))

    def _failed(self, step: int, error: TitanflowError) -> None:
        first = str(error).partition("\n")[0]
        if len(self._steps) > 1 or (self._tries[step] < TRIES and not isinstance(error, ConfigError)):
            self._logger.warning("%s step %d is scored once more: %s", self.training.stage, step, first)
            return
        self._logger.warning("%s step %d isn't scored: %s", self.training.stage, step, error)
        self._note(step, {"failed": first})

    def _note(self, step: int, found: dict[str, Any]) -> None:
        asked = {"step": step, "tasks": self.run.config["tasks"], "limit": self.run.config["limit"]}
        append_record(self.file, asked | found)
        self._done.add(step)
        self._waiting.pop(step, None)
        self._release()

    def _release(self) -> None:
        """Lets go of the checkpoints that are scored; the best so far is held on, whatever the retention says."""
        best = best_checkpoint(self.training, self._best_by) if self._best_by else None
        if best is not None and flaw(self.run.folder / f"step-{best.step}"):
            # An earlier start scored it before anyone asked for the best.
            saved = kept_checkpoint(self.training, best.step)
            if not flaw(saved):
                hold(saved, self.run.folder)
        for step, path in step_folders(self.run.folder).items():
            if step not in self._waiting and (best is None or step != best.step):
                shutil.rmtree(path, ignore_errors=True)

    def _note_missed(self) -> None:
        steps, every = self.training.config["training"]["steps"], self.settings["every"]
        for step in sorted({*range(every, steps, every), steps} - self._done):
            reason = "its checkpoint was removed before it could be held (checkpoint.keep_latest_k keeps more)"
            self._logger.warning("%s step %d isn't scored: %s", self.training.stage, step, reason)
            self._note(step, {"failed": reason})


def _figures(result: EvaluateResult, step: int) -> dict[str, Any]:
    """What a record keeps of a checkpoint's evaluation; a score that isn't finite is left out."""
    return {
        "part": result.part,
        "scores": {
            task: {metric: value for metric, value in metrics.items() if math.isfinite(value)}
            for task, metrics in result.scores[f"step-{step}"].items()
        },
        "samples": result.samples,
        "higher_is_better": result.higher_is_better,
        "seconds": round(result.seconds / len(result.scores), 3),
    }


@contextlib.contextmanager
def scored_beside(plan: StagePlan, environment: Mapping[str, str], logger: Logger) -> Iterator[During | None]:
    """The scores of a training for the length of the block; None where none are asked for."""
    if plan.during is None:
        yield None
        return
    during = During(plan, environment, logger)
    try:
        yield during
    finally:
        during.close()
