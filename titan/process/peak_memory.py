"""The most memory that a training had at once."""

from __future__ import annotations

from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int | None:
    """This rank's peak so far, in bytes: what torch reserved of a GPU, or of a CPU's memory what was resident.

    None where that can't be told.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    return resident_peak_bytes()


def resident_peak_bytes() -> int | None:
    """The most of a CPU's memory that this process has held, in bytes; None where the kernel doesn't say.

    ``getrusage`` won't do: its peak is also that of the process that started this one.
    """
    try:
        line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024
