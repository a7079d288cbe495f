"""Folders that are written beside their place and moved there when complete, and the errors of a full disk."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from titanflow.common.errors import StageFailed

# Temporary folders that this process is writing now.
_staged: set[Path] = set()
# No space, no quota, larger than a file may be.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def staged_folder(folder: Path, mark: str) -> Iterator[Path]:
    """Yields a hidden sibling to write into, which becomes ``folder`` in one move when the block succeeds.

    An exception removes it. A killed process leaves the sibling, which nothing reads and the next run sweeps. Of two
    processes that make the same folder the second finds it there and drops its own copy, which is equal. ``mark`` is a
    file that every complete folder has.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f"{staging_prefix(folder)}{os.getpid()}-", dir=folder.parent))
    temporary.chmod(0o755)
    _staged.add(temporary)
    try:
        yield temporary
        if folder.is_dir() and not (folder / mark).is_file():
            shutil.rmtree(folder)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / mark).is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _staged.discard(temporary)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yields a folder that is removed when the block ends, however it ends."""
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=parent) as name:
        scratch = Path(name)
        _staged.add(scratch)
        yield scratch
    _staged.discard(scratch)


def discard_staged() -> None:
    """Removes what this process is staging, and its scratch folders: for a process that must end at once."""
    for temporary in tuple(_staged):
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Removes what killed processes of this machine left beside ``folder``."""
    prefix = staging_prefix(folder)
    for leftover in folder.parent.glob(f"{glob.escape(prefix)}*"):
        process = leftover.name.removeprefix(prefix).partition("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(leftover, ignore_errors=True)


def staging_prefix(folder: Path) -> str:
    """The prefix of hidden siblings of ``folder`` that :func:`sweep` removes; a process id follows."""
    # A process id means something only on its own machine, and a workspace may be shared.
    return f".{folder.name}.{socket.gethostname()}."


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Tells a full disk in a sentence: its error is no traceback.

    Raises:
        StageFailed: the disk was full in the block.
    """
    try:
        yield
    except OSError as error:
        if not (said := no_room(error)):
            raise
        message = f"the disk is full ({said}): make room, and start the run again: what was saved stays"
        raise StageFailed(message) from error


def no_room(error: BaseException | None) -> str:
    """The message of a full disk, if ``error`` or one of its causes is that; otherwise empty."""
    while error is not None:
        # Libraries written in Rust raise a plain Exception with the system's error number in its text.
        number = error.errno if isinstance(error, OSError) else None
        if number in _NO_ROOM or any(f"(os error {code})" in str(error) for code in _NO_ROOM):
            return str(error)
        error = error.__cause__ or error.__context__
    return ""
