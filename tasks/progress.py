"""What of a running stage is seen in Prefect: log lines, a progress ring, and at the end a table and a curve."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from logging import LoggerAdapter
from typing import Any, TypeVar
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.loss_curve import loss_curve
from tasks.results import rows
from titanflow.metrics_lines import read_metrics
from titanflow.score_table import is_stderr
from titanflow.stage import METRICS_FILE, StageResult, StageRun

Returned = TypeVar("Returned")
Logger = logging.Logger | LoggerAdapter[logging.Logger]

UI_PAUSE_SECONDS = 60.0
"""How long the artifacts rest after the API didn't answer."""


class Progress:
    """Follows one stage; call it with each batch of new metrics records.

    The UI is a window, not a part of the training: an API that is away for a moment is logged once, and the
    training goes on.
    """

    def __init__(self, run: StageRun, logger: Logger) -> None:
        self.run = run
        self.steps = total_steps(run.config)
        self._logger = logger
        self._artifact: UUID | None = None
        self._first: tuple[int, float] | None = None
        self._ui_rests_until = 0.0
        self._ui_complained = False

    def __call__(self, records: list[dict[str, Any]]) -> None:
        """Logs the newest step and moves the progress ring."""
        seen = [record for record in records if "step" in record]
        if not seen:
            return
        now = time.monotonic()
        step = seen[-1]["step"]
        self._first = self._first or (step, now)
        # A validation has a record of its own, beside that of its training step.
        merged = {key: value for record in seen for key, value in record.items()}
        self.steps = merged.get("steps", self.steps)
        self._logger.info(describe(self.run.stage, merged, self.steps, self._seconds_left(step, now)))
        if self.steps:
            self._show_progress(min(100.0, 100.0 * step / self.steps))

    def finish(self, result: StageResult) -> None:
        """Leaves the table of results and the loss curve."""
        stage = self.run.stage
        if self._artifact:
            self._show_progress(100.0)
        if table := rows(result):
            self._ui(create_table_artifact, table, key=f"{stage}-results", description=f"Results of {stage}")
        curve = loss_curve(read_metrics(self.run.folder / METRICS_FILE), f"{self.run.experiment} {stage}")
        if curve:
            self._ui(create_image_artifact, curve, key=f"{stage}-loss", description=f"Loss of {stage}")

    def _seconds_left(self, step: int, now: float) -> float | None:
        if self._first is None or not self.steps or step <= self._first[0]:
            return None
        first_step, first_seen = self._first
        return (self.steps - step) * (now - first_seen) / (step - first_step)

    def _show_progress(self, percent: float) -> None:
        if self._artifact:
            self._ui(update_progress_artifact, self._artifact, percent)
        else:
            key = f"{self.run.stage}-progress"
            text = f"{self.run.stage}, {self.steps:,} steps"
            self._artifact = self._ui(create_progress_artifact, percent, key=key, description=text)

    def _ui(self, call: Callable[..., Returned], *args: Any, **kwargs: Any) -> Returned | None:
        if time.monotonic() < self._ui_rests_until:
            return None
        try:
            # Prefect's own retries would hold up the next look at the training for a minute.
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                return call(*args, **kwargs)
        except Exception as error:
            self._ui_rests_until = time.monotonic() + UI_PAUSE_SECONDS
            if not self._ui_complained:
                self._ui_complained = True
                self._logger.warning("Prefect's artifacts can't be updated (%s); %s goes on", error, self.run.stage)
            return None


def total_steps(config: Mapping[str, Any]) -> int | None:
    """The steps that a stage will take, None where it counts none."""
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


def thousands(number: float) -> str:
    """A rate in three or four characters: 870, 3.4k, 38k, 1.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            scaled = number / size
            return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """Seconds as 0:41, 12:05 or 3:00:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
