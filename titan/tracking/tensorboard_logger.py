"""A stage's metrics in TensorBoard, in one folder, each step once, also after a resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

QUEUE = 1000
"""Values that wait to be written, as in torchtitan; the training never waits for a slow disk."""


class TensorBoardLogger:
    """Writes scalars under the step's number.

    torchtitan's has a folder for each start of a stage. Event files can't be cut, and a killed writer loses the last
    two minutes; so a resumed stage writes its history anew, from ``metrics.jsonl``, and says that what older files
    have doesn't count.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: SummaryWriter | None = None
        self._last: tuple[int, set[str]] = (0, set())

    def begin(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Writes the history so far in place of what there was."""
        # A TensorBoard that is open reads the newest; without it, it would never come to the next.
        for old in sorted(self.folder.glob("events.out.tfevents.*"))[:-1]:
            old.unlink()
        self.writer = SummaryWriter(str(self.folder), max_queue=QUEUE, purge_step=0)
        for step, row in rows.items():
            self.log(row, step)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs some of a step's values, each once: the axis comes with a step and with its validation."""
        assert self.writer is not None
        logged = self._last[1] if self._last[0] == step else set()
        for name, value in metrics.items():
            if name not in logged:
                self.writer.add_scalar(name, value, step)
        self._last = (step, logged | set(metrics))

    def complete(self) -> None:
        """Ends the file."""
        self.close()

    def close(self) -> None:
        """Ends the file."""
        if self.writer is not None:
            self.writer.close()
