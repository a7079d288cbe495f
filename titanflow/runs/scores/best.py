"""The best checkpoint of a training by a score that was measured while it trained, read from its own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from titanflow.common.errors import Problem
from titanflow.runs.checkpoints import CHECKPOINTS, flaw
from titanflow.runs.contract import DURING_FOLDER, StageRun, Strict
from titanflow.runs.metrics import EVALUATIONS_FILE, read_metrics

KEY = "checkpoint.best"
"""The key of a publication that asks for it."""
LAST = "train it again, or publish its last checkpoint: leave checkpoint.best out"
PART = "dev"
"""The part of the held-out rows that choices are made by."""


class Best(Strict):
    """A training's best checkpoint: its ``value`` by ``by``, a ``dev/task/metric``, and how many were ``scored``."""

    stage: str
    step: int
    by: str
    value: float
    scored: int

    def __str__(self) -> str:
        return f"step {self.step:,} of {self.stage}, the best of {self.scored} by {self.by} ({self.value:.4g})"


def task_and_metric(by: str) -> tuple[str, str]:
    """The task and the metric of ``dev/task/metric``, or of it without its part."""
    task, _, metric = by.removeprefix(f"{PART}/").rpartition("/")
    return task, metric


def best_checkpoint(run: StageRun, by: str) -> Best | None:
    """The best scored checkpoint of a training so far; of equal ones the earliest. None if no score says which it is.

    ``run`` is the training as it ran. Scores of another part, or of another number of items than its last start asked
    for, don't compare and don't count.
    """
    values, is_higher_better = _values(run, by)
    if not values:
        return None
    step = min(values, key=lambda step: (-values[step] if is_higher_better else values[step], step))
    return Best(stage=run.stage, step=step, by=by, value=values[step], scored=len(values))


def unscored(run: StageRun, by: str) -> dict[int, str]:
    """Why checkpoints that were evaluated can't be the best, by step: the reason of the newest try."""
    values, _ = _values(run, by)
    newest = {record["step"]: record for record in read_metrics(run.folder / EVALUATIONS_FILE)}
    return {
        step: record.get("failed") or ("the score is no number" if _compares(record, run) else "other items were asked")
        for step, record in newest.items()
        if step not in values
    }


def kept_checkpoint(run: StageRun, step: int) -> Path:
    """The checkpoint of a step where the training saved it or, if it isn't whole there, where it is held."""
    saved, held = (run.folder / folder / f"step-{step}" for folder in (CHECKPOINTS, DURING_FOLDER))
    return held if flaw(saved) else saved


def unknown_best(run: StageRun, by: str, key: str = KEY) -> Problem:
    """What to say of a training none of whose checkpoints has the score; ``key`` asks for it."""
    reason = next(reversed(unscored(run, by).values()), "")
    found = f"no checkpoint of {run.stage} was scored by {by}" + (f": {reason}" if reason else "")
    return Problem(found, key, str(run.folder / EVALUATIONS_FILE), ", ".join(_known(run)), LAST)


def gone(run: StageRun, best: Best, key: str = KEY) -> Problem:
    """What to say if the best checkpoint isn't there any more."""
    found = f"{best}, and its checkpoint wasn't kept: {key} wasn't set while it trained"
    return Problem(found, key, str(run.folder / CHECKPOINTS), hint=LAST)


def _known(run: StageRun) -> list[str]:
    """The scores by which a training's best checkpoint could be told, as ``dev/task/metric``."""
    named = [
        f"{PART}/{task}/{metric}"
        for record in _comparable(run)
        for task, found in record.get("higher_is_better", {}).items()
        for metric in found
    ]
    return list(dict.fromkeys(named))


def _values(run: StageRun, by: str) -> tuple[dict[int, float], bool]:
    """The score of each step, and whether a larger one is better."""
    task, metric = task_and_metric(by)
    values: dict[int, float] = {}
    is_higher_better = True
    for record in _comparable(run):
        value = record.get("scores", {}).get(task, {}).get(metric)
        better = record.get("higher_is_better", {}).get(task, {}).get(metric.partition(",")[0])
        if isinstance(value, float | int) and isinstance(better, bool):
            values[record["step"]], is_higher_better = value, better
    return values, is_higher_better


def _comparable(run: StageRun) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run.folder / EVALUATIONS_FILE) if _compares(record, run)]


def _compares(record: dict[str, Any], run: StageRun) -> bool:
    asked = run.config.get("during") or {}
    return record.get("part") == PART and record.get("limit") == asked.get("limit")
