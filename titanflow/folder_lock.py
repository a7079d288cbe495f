"""Whether somebody works in a folder: an ``flock`` on its lock file, which the system lets go of with the process."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = ".lock"


@contextlib.contextmanager
def held(folder: Path, name: str = LOCK_FILE) -> Iterator[bool]:
    """Holds a folder for the length of the block, if nobody else does: False where somebody does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def is_held(folder: Path) -> bool:
    """Whether another holds a folder now."""
    if not (folder / LOCK_FILE).exists():
        return False
    with held(folder) as mine:
        return not mine
