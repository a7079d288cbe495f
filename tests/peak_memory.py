"""The memory at its peak of a process that a test starts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.02


def peak_of(command: list[str]) -> int:
    """The most anonymous memory in bytes that a process held, without the pages of files that it maps.

    It is sampled: no event tells of memory.
    """
    # What an allocator keeps for each thread would depend on the machine.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process, peak = psutil.Popen(command, stdout=subprocess.DEVNULL, env=environment), 0
    while (status := process.poll()) is None:
        peak = max(peak, _anonymous(process.pid))
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(SAMPLE_SECONDS)
    assert status == 0
    return peak


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), 0)
