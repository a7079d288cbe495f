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

    The files are written beside the folder and take its place in one rename, so that a reader never meets half of
    a model, and a full disk or a copy that says something else than the evaluated model leaves what was there.

    Raises:
        ConfigError: the folder holds something that no publish wrote.
        StageFailed: a file changed while it was copied, or the copy doesn't say what the evaluated model said.
    """
    check_replaceable(folder)
    # What a killed publish left is a whole model.
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
        said = wrong_continuation(fresh)
        if said:
            raise StageFailed(
                f"The copy for {folder} fails its verification; nothing was published. {COMPUTES_OTHERWISE}\n{said}"
            )
        replace(folder, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return True


def preview_folder(bundle: Bundle, folder: Path) -> Difference:
    """What :func:`write_folder` would change; nothing is written.

    Raises:
        ConfigError: the folder holds something that no publish wrote.
    """
    check_replaceable(folder)
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    added = tuple(
        name for name, entry in bundle.items() if name not in there or file_entry(there[name]).sha256 != entry.sha256
    )
    return Difference(added, tuple(name for name in there if name not in bundle))


def holds(folder: Path, bundle: Bundle) -> bool:
    """Whether ``folder`` holds exactly the bundle's bytes under the bundle's names."""
    paths = held(folder)
    if paths.keys() != bundle.keys() or any(path.is_symlink() for path in paths.values()):
        return False
    if any(paths[name].stat().st_size != entry.size for name, entry in bundle.items()):
        return False
    return all(file_entry(paths[name]).sha256 == entry.sha256 for name, entry in bundle.items())


def copy(source: Path | bytes, path: Path) -> None:
    """Writes one file with the permissions that the user's umask gives.

    safetensors are exported with mode 0600, which would hide a published model from everyone else.
    """
    if isinstance(source, bytes):
        path.write_bytes(source)
    else:
        shutil.copyfile(source, path)


def replace(folder: Path, fresh: Path) -> None:
    """Puts ``fresh`` in the place of ``folder``; if that fails, the old folder is back where it was.

    Where the system can exchange the two, there is a model under the name at every moment.
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
"""What a kernel or a file system answers that knows no exchange."""


def exchange(first: Path, second: Path) -> bool:
    """Swaps two paths of one file system by Linux's ``renameat2``; False, and nothing done, where there is none.

    Python's own renames replace a file in one step, but no folder that holds something.

    Raises:
        OSError: a path isn't there, or may not be renamed.
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
