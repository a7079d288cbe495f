"""Publishes a bundle into a folder: whole or not at all.

Whether the folder can take a model is checked before anything is trained, and again before writing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from titanflow.common.errors import ConfigError, Problem, StageFailed
from titanflow.common.files import expanded, hidden_sibling
from titanflow.common.staging import staging_prefix, sweep
from titanflow.publish.bundle import LINEAGE, Bundle, Difference, is_published
from titanflow.publish.continuation import COMPUTES_OTHERWISE, wrong_continuation
from titanflow.runs.contract import StageRun

HINT = "set `folder` to a new or empty folder"
SHOWN = 3
"""How many files in the way a message names."""
AT_FDCWD = -100
RENAME_EXCHANGE = 2
CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""The errors of a kernel or a file system that can't exchange two paths."""


def folder_problems(named: str | None, run: StageRun) -> list[Problem]:
    """What is wrong with the folder that a config names; None is the stage's own.

    If something was published to the folder before, the push checks the rest of its content.
    """
    if named is None:
        return []
    folder = expanded(named)
    try:
        found = f"found {named!r}" if not named.strip() else in_the_way(folder) or _unwritable(folder, run)
    except OSError as error:
        found = f"{folder} can't be read: {error.strerror}"
    return [Problem(found, f"{run.stage}.folder", run.origins.get("folder", ""), hint=HINT)] if found else []


def in_the_way(folder: Path) -> str:
    """Why, at a first look, no model may replace the folder: it is none, or nothing was published to its files."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return f"{folder} is not a folder"
    if not folder.is_dir() or (folder / LINEAGE).is_file():
        return ""
    return _foreign(folder, (path.name for path in folder.iterdir()))


def _foreign(folder: Path, names: Iterable[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"{folder} holds files that were not published: {shown}" if shown else ""


def _unwritable(folder: Path, run: StageRun) -> str:
    place = folder.absolute()
    other = next((name for name, stage in run.stages.items() if place.is_relative_to(stage.absolute())), None)
    if other is not None:
        return f"{folder} lies in the folder of the stage {other}"
    above = next(path for path in place.parents if os.path.lexists(path))
    if not above.is_dir():
        return f"{above} is not a folder"
    return "" if os.access(above, os.W_OK | os.X_OK) else f"nothing can be written into {above}"


def check_replaceable(folder: Path) -> None:
    """Raises a ConfigError unless ``folder`` isn't there, is empty, or was published before."""
    if found := in_the_way(folder) or _foreign(folder, (name for name in held(folder) if not is_published(name))):
        raise ConfigError(Problem(found, "folder", hint=HINT))


def held(folder: Path) -> dict[str, Path]:
    """A folder's content by relative name: every file and symlink, and folders that are empty."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    }


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
    added = tuple(name for name, entry in bundle.items() if name not in there or not entry.is_at(there[name]))
    return Difference(added, tuple(name for name in there if name not in bundle))


def holds(folder: Path, bundle: Bundle) -> bool:
    paths = held(folder)
    if paths.keys() != bundle.keys() or any(path.is_symlink() for path in paths.values()):
        return False
    # All sizes first: a hash reads the whole file.
    if any(paths[name].stat().st_size != entry.size for name, entry in bundle.items()):
        return False
    return all(entry.is_at(paths[name]) for name, entry in bundle.items())


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
    old = hidden_sibling(folder)
    folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


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
