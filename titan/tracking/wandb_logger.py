"""A training stage's metrics in Weights & Biases, without a gap or a repeat after a resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titan.tracking.wandb_files import is_final, keep_steps, recordings, steps
from titan.tracking.wandb_run import end_run, open_run
from titanflow.runs.contract import StageRun
from titanflow.runs.tracker_record import TITLES, read_tracker_record, tracker_mode


class WandbLogger:
    """Logs a row a step to the stage's run.

    A killed stage has logged steps after its checkpoint, and W&B has lost rows that were in memory. So a start removes
    the former from its offline recordings, and adds the latter from ``metrics.jsonl``. Steps that a server has, or may
    have, can't be taken back: they stay as first logged.
    """

    name = TITLES["wandb"]

    def __init__(self, run: StageRun) -> None:
        self.run = run
        self.opened: Any = None
        self._final = 0

    def begin(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Opens the run, and completes its history to ``rows``."""
        # A server tells which steps it has.
        missing = set(rows) if tracker_mode("wandb") == "online" else self._take_back(rows)
        self.opened, record = open_run(self.run)
        if record.mode == "online":
            self._final = self.opened.starting_step - 1
        for step, row in rows.items():
            if step in missing:
                self.log(row, step)

    def _take_back(self, rows: Mapping[int, Mapping[str, float]]) -> set[int]:
        """Removes all but the steps of ``rows`` from earlier recordings; returns the steps that none holds."""
        stored = read_tracker_record(self.run.folder, "wandb")
        # The last row may lack its validation, and W&B can complete a row only within one process.
        missing = set(rows) - {max(rows, default=0)}
        for recording in recordings(self.run.folder, stored.id) if stored else ():
            if is_final(recording):
                self._final = max([self._final, *steps(recording)])
            else:
                missing -= keep_steps(recording, missing)
        return missing | ({max(rows)} if rows else set())

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs values of a step; its row is written when the next step's begins."""
        if step > self._final:
            self.opened.log(dict(metrics), step=step)

    def complete(self) -> None:
        """Leaves the run open for :func:`titan.tracking.wandb_run.record_in_wandb`."""

    def close(self) -> None:
        if self.opened is not None:
            end_run(self.opened)
