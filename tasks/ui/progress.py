"""How Prefect shows a running stage: log lines, a progress ring, and at the end tables and a curve."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tasks.ui.artifacts import Artifacts, Logger, loss_curve
from tasks.ui.results import links, rows
from tasks.ui.tables import begin_tables, finish_tables
from titanflow.run.contract import METRICS_FILE, StageRun
from titanflow.run.metrics import read_metrics
from titanflow.run.results import StageResult, is_stderr

LINE_SECONDS = 10.0
RING_SECONDS = 30.0
"""Each move of the ring is a request, and API and database may share two cores with the training."""
LINE_SHARE = 0.01
"""Later on, lines are apart by this share of the time so far: a minute after two hours."""


class Progress:
    """Follows one stage; call it with each batch of new metrics records, of which the next line of the log tells."""

    def __init__(self, run: StageRun, logger: Logger) -> None:
        self.run = run
        self.steps = total_steps(run.config)
        self._logger = logger
        self._artifacts = Artifacts(run.stage, logger)
        self._has_begun = False
        self._first: tuple[int, float] | None = None
        self._newest: dict[str, Any] = {}
        self._untold: dict[str, Any] = {}
        self._line_at = 0.0
        self._ring_at = 0.0

    def __call__(self, records: list[dict[str, Any]]) -> None:
        """Logs the newest step and moves the progress ring, unless it did so a moment ago."""
        if not self._has_begun:
            # Now, two seconds after the start: this takes less time than the stage's own start.
            self._has_begun = True
            for what, table, text in begin_tables(self.run, self._logger):
                self._artifacts.table(what, table, text)
        now = time.monotonic()
        for record in records:
            if "step" in record:
                # A validation has a record of its own, beside that of its training step.
                self._newest |= record
                self._untold |= record
        if not self._untold:
            return
        self._first = self._first or (self._newest["step"], now)
        self.steps = self._newest.get("steps", self.steps)
        if now >= self._line_at:
            self._tell(now)
        if now >= self._ring_at:
            self._move_ring(now)

    def waits(self, text: str) -> None:
        """Logs what a cluster's job waits for, and shows it beside the ring, which stands where it stood."""
        self._logger.info(text)
        done = 100.0 * self._newest.get("step", 0) / self.steps if self.steps else 0.0
        self._artifacts.progress(min(100.0, done), text)

    def finish(self, result: StageResult) -> None:
        stage, now = self.run.stage, time.monotonic()
        if self._untold:
            self._tell(now)
        if self._newest and self.steps:
            self._artifacts.progress(100.0, self._where(now))
        self._artifacts.table("results", rows(result), f"Results of {stage}")
        for what, table, text in finish_tables(result):
            self._artifacts.table(what, table, text)
        records = read_metrics(self.run.folder / METRICS_FILE)
        if curve := loss_curve(records, f"{self.run.experiment} {stage}"):
            self._artifacts.image("loss", curve, f"Loss of {stage}")
        for what, (text, url) in links(self.run.folder, result).items():
            self._artifacts.link(what, url, text)

    def _tell(self, now: float) -> None:
        self._logger.info(describe(self.run.stage, self._untold, self.steps, self._seconds_left(now)))
        self._untold = {}
        so_far = now - self._first[1] if self._first else 0.0
        self._line_at = now + max(LINE_SECONDS, LINE_SHARE * so_far)

    def _move_ring(self, now: float) -> None:
        if self.steps:
            self._artifacts.progress(min(100.0, 100.0 * self._newest["step"] / self.steps), self._where(now))
            self._ring_at = now + RING_SECONDS

    def _where(self, now: float) -> str:
        return beside_the_ring(self._newest, self.steps, self._seconds_left(now))

    def _seconds_left(self, now: float) -> float | None:
        step = self._newest["step"]
        if self._first is None or not self.steps or step <= self._first[0]:
            return None
        first_step, first_seen = self._first
        return (self.steps - step) * (now - first_seen) / (step - first_step)


def total_steps(config: Mapping[str, Any]) -> int | None:
    steps = (config.get("training") or {}).get("steps")
    return steps if isinstance(steps, int) and steps > 0 else None


def describe(stage: str, record: Mapping[str, Any], steps: int | None, seconds_left: float | None) -> str:
    """One log line, as ``pretrain step 120/300 loss 3.210 lr 1.0e-03 38k tok/s, 0:41 left``."""
    parts = [f"{stage} step {record['step']:,}" + (f"/{steps:,}" if steps else "")]
    if "task" in record:
        scores = (f"{metric} {value:.3g}" for metric, value in record["scores"].items() if not is_stderr(metric))
        parts += [record["model"], record["task"], *scores]
    if "loss" in record:
        parts.append(f"loss {record['loss']:.3f}")
    if "validation_loss" in record:
        parts.append(f"validation loss {record['validation_loss']:.3f}")
    if "learning_rate" in record:
        parts.append(f"lr {record['learning_rate']:.1e}")
    if "tokens_per_second" in record:
        parts.append(f"{thousands(record['tokens_per_second'])} tok/s")
    return " ".join(parts) + ("" if seconds_left is None else f", {clock(seconds_left)} left")


def beside_the_ring(record: Mapping[str, Any], steps: int | None, seconds_left: float | None) -> str:
    """A stage's progress, as ``step 120 of 300, 123k tokens, loss 3.210, 38k tokens/s, 0:41 left``."""
    parts = [f"step {record['step']:,}" + (f" of {steps:,}" if steps else "")]
    if "tokens" in record:
        parts.append(f"{thousands(record['tokens'])} tokens")
    if "task" in record:
        parts.append(f"{record['model']} {record['task']}")
    for key, name in (("loss", "loss"), ("validation_loss", "validation loss")):
        if key in record:
            parts.append(f"{name} {record[key]:.3f}")
    if "tokens_per_second" in record:
        parts.append(f"{thousands(record['tokens_per_second'])} tokens/s")
    if seconds_left is not None:
        parts.append(f"{clock(seconds_left)} left" if seconds_left else "done")
    return ", ".join(parts)


def thousands(number: float) -> str:
    """A number in three or four characters: 870, 3.4k, 38k, 1.2M, 15B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            scaled = number / size
            return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """Seconds as 0:41, 12:05 or 3:00:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
