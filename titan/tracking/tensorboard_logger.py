"""A stage's metrics in one TensorBoard folder, without repeats after a resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

QUEUE = 1000
"""Values that may wait for a slow disk before the training does, as in torchtitan."""


class TensorBoardLogger:
    """Writes scalars by step.

    torchtitan's logger has a folder for each start of a stage. Event files can't be shortened, and a killed writer
    loses the last two minutes. So a resumed stage rewrites its history from ``metrics.jsonl`` and purges older files'.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: SummaryWriter | None = None
        self._last: tuple[int, set[str]] = (0, set())

    def begin(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        # An open TensorBoard reads the newest file, and goes on to the next only from there.
        for old in sorted(self.folder.glob("events.out.tfevents.*"))[:-1]:
            old.unlink()
        self.writer = SummaryWriter(str(self.folder), max_queue=QUEUE, purge_step=0)
        for step, row in rows.items():
            self.log(row, step)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs values of a step, each once: both a step and its validation bring the axis."""
        assert self.writer is not None
        logged = self._last[1] if self._last[0] == step else set()
        for name, value in metrics.items():
            if name not in logged:
                self.writer.add_scalar(name, value, step)
        self._last = (step, logged | set(metrics))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    complete = close
