"""Where a running stage stands, by the records of its ``metrics.jsonl``, and how that is said in a line."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from titanflow.runs.contract import StageRun
from titanflow.runs.results import is_stderr

MOST_LOSSES = 128
"""Points of the loss curve that are kept; of more, every second one goes."""


class Standing:
    """A stage from its start or its last restart on: its newest figures, its losses, and the time left.

    ``newest`` merges the records: a validation has one of its own, beside that of its training step. ``said`` is what
    the stage waits for, empty once it moves. Times are those of ``time.monotonic``.
    """

    def __init__(self, run: StageRun, said: str = "") -> None:
        self.run = run
        self.steps = total_steps(run.config)
        self.newest: dict[str, Any] = {}
        self.losses: list[float] = []
        self.said = said
        self.began = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._seen = 0.0
        self._apart, self._losses_seen = 1, 0

    def add(self, records: Iterable[dict[str, Any]], now: float) -> dict[str, Any]:
        """Takes new records, read at ``now``, and returns them as one."""
        told: dict[str, Any] = {}
        for record in records:
            if "step" in record:
                told |= record
                self._keep_loss(record.get("loss"))
        if told:
            self.newest |= told
            self.steps = self.newest.get("steps", self.steps)
            self._first = self._first or (self.newest["step"], now)
            self._seen = now
            self.said = ""
        return told

    def _keep_loss(self, loss: float | None) -> None:
        if loss is None:
            return
        if self._losses_seen % self._apart == 0:
            self.losses.append(loss)
        self._losses_seen += 1
        if len(self.losses) > MOST_LOSSES:
            # Replaced, not changed: another thread may be drawing it.
            self.losses, self._apart = self.losses[::2], 2 * self._apart

    @property
    def first_seen(self) -> float | None:
        """When its first record was read."""
        return self._first[1] if self._first else None

    @property
    def share(self) -> float | None:
        """The part of its steps that is done, 0 to 1; None if their number isn't known."""
        return min(1.0, self.newest.get("step", 0) / self.steps) if self.steps else None

    def seconds_left(self, now: float) -> float | None:
        """The time that the steps left will take at the speed so far; None before the second look."""
        if self._first is None or not self.steps:
            return None
        (first_step, first_seen), step = self._first, self.newest["step"]
        return None if step <= first_step else (self.steps - step) * (now - first_seen) / (step - first_step)

    def countdown(self, now: float) -> float | None:
        """The same, as told by the last record and running down since."""
        left = self.seconds_left(self._seen)
        return None if left is None else max(0.0, left - (now - self._seen))


def total_steps(config: Mapping[str, Any]) -> int | None:
    steps = (config.get("training") or {}).get("steps")
    return steps if isinstance(steps, int) and steps > 0 else None


def describe(stage: str, record: Mapping[str, Any], steps: int | None, seconds_left: float | None) -> str:
    """One log line, as ``pretrain step 120/300 loss 3.210 lr 1.0e-03 38k tok/s, 0:41 left``."""
    parts = [f"{stage} step {record['step']:,}" + (f"/{steps:,}" if steps else "")]
    if "task" in record:
        parts += [record["model"], record["task"], *scores(record)]
    if "loss" in record:
        parts.append(f"loss {record['loss']:.3f}")
    if "validation_loss" in record:
        parts.append(f"validation loss {record['validation_loss']:.3f}")
    if "learning_rate" in record:
        parts.append(f"lr {record['learning_rate']:.1e}")
    if "tokens_per_second" in record:
        parts.append(f"{thousands(record['tokens_per_second'])} tok/s")
    return " ".join(parts) + ("" if seconds_left is None else f", {clock(seconds_left)} left")


def scores(record: Mapping[str, Any]) -> list[str]:
    """The scores of an evaluated task, as ``acc 0.93``."""
    return [f"{metric} {value:.3g}" for metric, value in record["scores"].items() if not is_stderr(metric)]


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
