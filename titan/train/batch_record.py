"""``batches.jsonl``: which rows each step was trained on, written only where a proof asks for it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torchtitan.components.loss import IGNORE_INDEX

from titan.tracking.metrics_file import MetricsFile
from titanflow.runs.metrics import BATCHES_FILE, RECORD_BATCHES

BITS = 48
"""Bits of a digest; the ranks' digests are added in 64 bits."""
FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
"""Odd constants of xxHash and splitmix64, one each for tokens, labels and places."""


class BatchRecord:
    """Adds up the digests of a step's rows; the number of microbatches and ranks makes no difference.

    Does nothing unless :meth:`is_wanted`. ``group`` holds the data-parallel ranks that have rows of their own; None
    where this process has all.
    """

    def __init__(self, folder: Path, group: dist.ProcessGroup | None, writes: bool) -> None:
        self.file = MetricsFile(folder / BATCHES_FILE)
        self.group = group
        self.writes = writes
        self._sum = 0

    @staticmethod
    def is_wanted() -> bool:
        return bool(os.environ.get(RECORD_BATCHES))

    def begin(self, step: int) -> None:
        """Drops what was recorded after ``step``, the last that the checkpoint holds."""
        if self.is_wanted() and self.writes:
            self.file.keep(lambda record: record["step"] <= step)

    def add(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Takes a microbatch; both are ``[batch, seq_len]``, on the CPU."""
        if self.is_wanted():
            self._sum = (self._sum + batch_digest(inputs, labels)) % (1 << BITS)

    def write(self, step: int) -> None:
        """Records a step; every rank calls it."""
        if not self.is_wanted():
            return
        total = torch.tensor(self._sum, dtype=torch.int64)
        if self.group is not None:
            dist.all_reduce(total, group=self.group)
        self._sum = 0
        if self.writes:
            self.file.append({"step": step, "batch": f"{int(total) % (1 << BITS):012x}"})


def batch_digest(inputs: torch.Tensor, labels: torch.Tensor) -> int:
    """A number below 2**48 for a batch: the sum of its rows' digests, whatever their order.

    Tokens after a row's last label are padding and don't count.
    """
    trained = labels != IGNORE_INDEX
    # A running maximum from the right is true up to the last trained label.
    counts = trained.flip(1).cummax(dim=1).values.flip(1) if trained.numel() else trained
    place = torch.arange(1, inputs.shape[1] + 1, dtype=torch.int64)
    first, second, third = (factor - (1 << 64) if factor >= 1 << 63 else factor for factor in FACTORS)
    mixed = (inputs.long() + 1) * first + (labels.long() + 1) * second
    mixed = (mixed ^ (mixed >> 29)) * (place * third | 1)
    rows = (mixed * counts).sum(dim=1)
    rows = (rows ^ (rows >> 32)) * first
    return sum(int(row) % (1 << BITS) for row in rows) % (1 << BITS)
