"""The most memory that a training had at one time."""

from __future__ import annotations

from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int | None:
    """This rank's peak so far, in bytes: reserved on the GPU, or resident on a CPU; None where it can't be told."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    return resident_peak_bytes()


def resident_peak_bytes() -> int | None:
    """The most memory that this process has held on a CPU, in bytes; None where the kernel doesn't say.

    ``getrusage`` won't do: its peak includes that of the process that started this one.
    """
    try:
        line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024
