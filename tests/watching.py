"""Waiting for what other processes do, by looking."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

PATIENCE = 120.0
"""How long a hang may last. Nothing that is waited for takes as long, on a busy machine either."""
STAYS = 600
"""How many seconds a program stays that a test is to end: more than any patience, lest it end by itself in time."""
Found = TypeVar("Found")


def wait_for(found: Callable[[], Found], what: str, patience: float = PATIENCE) -> Found:
    """Looks until ``found()`` is true and returns what it found; fails with what was waited for."""
    deadline = time.monotonic() + patience
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


def lines(path: Path) -> list[str]:
    """A file's lines; none if there is no file yet."""
    return path.read_text().splitlines() if path.exists() else []


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
