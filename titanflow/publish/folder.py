"""Publishes a bundle into a folder: whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

from titanflow.common.errors import StageFailed
from titanflow.common.staging import staging_prefix, sweep
from titanflow.publish.bundle import Bundle, file_entry
from titanflow.publish.continuation import COMPUTES_OTHERWISE, wrong_continuation
from titanflow.publish.difference import Difference
from titanflow.publish.target_folder import check_replaceable, held


def write_folder(bundle: Bundle, folder: Path) -> bool:
    """Makes ``folder`` hold exactly the bundle; returns whether anything had to change.

    The files are written beside the folder and replace it in one rename. So a reader never meets half a model, and a
    full disk or a copy that fails its verification leaves the old model in place.
    """
    check_replaceable(folder)
    # A killed publish leaves a copy as large as the model.
    sweep(folder)
    if folder.is_dir() and holds(folder, bundle):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f"{staging_prefix(folder)}{os.getpid()}-model.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        for name, entry in bundle.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            copy(entry.source, fresh / name)
        if not holds(fresh, bundle):
            raise StageFailed(f"The export changed while it was copied to {folder}; nothing was published.")
        if said := wrong_continuation(fresh):
            raise StageFailed(
                f"The copy for {folder} fails its verification; nothing was published. {COMPUTES_OTHERWISE}\n{said}"
            )
        replace(folder, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return True


def preview_folder(bundle: Bundle, folder: Path) -> Difference:
    """What :func:`write_folder` would change; nothing is written."""
    check_replaceable(folder)
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    added = tuple(
        name for name, entry in bundle.items() if name not in there or file_entry(there[name]).sha256 != entry.sha256
    )
    return Difference(added, tuple(name for name in there if name not in bundle))


def holds(folder: Path, bundle: Bundle) -> bool:
    paths = held(folder)
    if paths.keys() != bundle.keys() or any(path.is_symlink() for path in paths.values()):
        return False
    # Sizes first: a hash reads the whole file.
    if any(paths[name].stat().st_size != entry.size for name, entry in bundle.items()):
        return False
    return all(file_entry(paths[name]).sha256 == entry.sha256 for name, entry in bundle.items())


def copy(source: Path | bytes, path: Path) -> None:
    """Writes a file with the umask's permissions; safetensors' own mode, 0600, would hide the model from others."""
    if isinstance(source, bytes):
        path.write_bytes(source)
    else:
        shutil.copyfile(source, path)


def replace(folder: Path, fresh: Path) -> None:
    """Puts ``fresh`` in the place of ``folder``; if that fails, the old folder is put back.

    If the system can exchange the two, there is a model under the name at every moment.
    """
    if not folder.exists():
        fresh.rename(folder)
        return
    if exchange(fresh, folder):
        shutil.rmtree(fresh)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


AT_FDCWD = -100
RENAME_EXCHANGE = 2
CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""The errors of a kernel or a file system that can't exchange two paths."""


def exchange(first: Path, second: Path) -> bool:
    """Swaps two paths of one file system by Linux's ``renameat2``; returns False, and does nothing, if there is none.

    Python's own renames can't replace a folder that isn't empty.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
