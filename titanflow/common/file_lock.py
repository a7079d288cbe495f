"""Locks that are files (``flock``), which the system lets go of with the process, and that say who holds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOCK_FILE = ".lock"


def take(file: IO[str]) -> str:
    """Takes the lock on a file, if it is free: empty then, otherwise who holds it, as :func:`sign` wrote it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "another process"
    return ""


def sign(file: IO[str], holder: str) -> None:
    """Writes into a lock's file who holds it."""
    file.truncate(0)
    file.write(f"{holder}\n")
    file.flush()


@contextlib.contextmanager
def held(folder: Path, name: str = LOCK_FILE) -> Iterator[bool]:
    """Holds a folder for the length of the block, if nobody else does: False where somebody does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+", encoding="utf-8") as file:
        mine = not take(file)
        if mine:
            sign(file, f"process {os.getpid()}")
        yield mine


def is_held(folder: Path) -> bool:
    """Whether another holds a folder now."""
    if not (folder / LOCK_FILE).exists():
        return False
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as file:
        return bool(take(file))
