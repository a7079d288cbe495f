"""Locks that are files (``flock``): the system frees them when the process ends, and they name their holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
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
