"""Locks that are files (``flock``): the system frees them when the process ends, and they name their holder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from titanflow.common.errors import ConfigError, Problem

LOCK_FILE = ".lock"


def open_lock(folder: Path, name: str = LOCK_FILE) -> IO[str]:
    """The file of a lock in a folder of the workspace, which is made if it isn't there.

    Raises:
        ConfigError: the folder can't be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / name).open("a+", encoding="utf-8")
    except OSError as error:
        message = f"{folder} can't be made: {error.strerror}"
        raise ConfigError(Problem(message, "workspace", expected="a folder that can be written to")) from error


def take(file: IO[str], kind: int = fcntl.LOCK_EX) -> str:
    """Takes a file's lock and returns an empty text, or returns its holder, as :func:`sign` wrote it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read().strip() or "another process"
    return ""


def sign(file: IO[str], holder: str) -> None:
    """Writes the holder into a lock's file."""
    file.truncate(0)
    file.write(f"{holder}\n")
    file.flush()


@contextlib.contextmanager
def held(folder: Path, name: str = LOCK_FILE) -> Iterator[bool]:
    """Holds a folder for the length of the block; yields False where another process holds it.

    Raises:
        ConfigError: as :func:`open_lock`.
    """
    with open_lock(folder, name) as file:
        mine = not take(file)
        if mine:
            sign(file, f"process {os.getpid()}")
        yield mine


def holder(folder: Path) -> str:
    """The process that holds a folder now, as :func:`sign` wrote it; empty if there is none, or nobody may look."""
    try:
        file = (folder / LOCK_FILE).open(encoding="utf-8")
    except OSError:
        return ""
    # Shared: who looks needs no leave to write, and keeps nobody from looking.
    with file:
        return take(file, fcntl.LOCK_SH)


@contextlib.contextmanager
def in_turn(path: Path, names: Iterable[str], say: Callable[[str], None]) -> Iterator[None]:
    """Waits until no other process is in such a block with one of these names; ``say`` is told which it waits for.

    ``path`` is a file for all names, of which each locks a byte of its own. A killed process's locks are free at once.
    The last process to leave removes the file.
    """
    with contextlib.ExitStack() as ends:
        while True:
            file = ends.enter_context(path.open("ab"))
            _lock_names(file, names, say)
            if _is_at(file, path):
                break
            ends.close()
        try:
            yield
        finally:
            # Only alone one gets the whole of it. Who opened it before finds that it is gone, and makes a new one.
            with contextlib.suppress(BlockingIOError, PermissionError):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)


def _lock_names(file: IO[bytes], names: Iterable[str], say: Callable[[str], None]) -> None:
    # All processes go by the same order, so that no two wait for each other.
    for name in sorted(set(names)):
        byte = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            say(name)
            fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is the one that stands at this path now."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
