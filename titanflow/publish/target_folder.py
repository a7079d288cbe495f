"""Whether a model can be published into a folder: checked before anything is trained, and again before writing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.home import expanded
from titanflow.publish.bundle import LINEAGE, is_published
from titanflow.run.contract import StageRun

HINT = "set `folder` to a new or empty folder"
SHOWN = 3
"""How many files in the way a message names."""


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
    return [Problem(found, "publish.folder", run.origins.get("folder", ""), hint=HINT)] if found else []


def in_the_way(folder: Path) -> str:
    """Why, at a first look, no model may replace the folder: it is none, or nothing was published to its files."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return f"{folder} is not a folder"
    if not folder.is_dir() or (folder / LINEAGE).is_file():
        return ""
    return _foreign(folder, (path.name for path in folder.iterdir()))


def _foreign(folder: Path, names: Iterable[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"{folder} holds files that no publish wrote: {shown}" if shown else ""


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
        raise ConfigError(Problem(found, "publish.folder", hint=HINT))


def held(folder: Path) -> dict[str, Path]:
    """A folder's content by relative name: every file and symlink, and folders that are empty."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    }
