"""Folders below the home folder that libraries write into, and where those are if it can't be written.

A container's user may have no home folder, or one that is read only. Without it Prefect, datasets and matplotlib fail
or complain. Only what would be written goes elsewhere: what lies in the home folder is still read there.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.files import expanded

WRITTEN = {
    "XDG_CACHE_HOME": "~/.cache",
    "MPLCONFIGDIR": "~/.config/matplotlib",
    "TRITON_CACHE_DIR": "~/.triton/cache",
    "WANDB_CONFIG_DIR": "~/.config/wandb",
    "WANDB_DATA_DIR": "~/.local/share/wandb",
    "PREFECT_HOME": "~/.prefect",
}
"""Environment variables that name a folder which is written into, and the folder without them."""
READ = {
    "HF_TOKEN_PATH": "~/.cache/huggingface/token",
    "HF_HUB_CACHE": "~/.cache/huggingface/hub",
    "PREFECT_PROFILES_PATH": "~/.prefect/profiles.toml",
}
"""Those that name what is read, which would be looked for in the new place of the folder around it."""


def cache_folder() -> Path:
    """This project's own folder in the user's cache folder."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or WRITTEN["XDG_CACHE_HOME"]) / "titanflow"


def move_unwritable(lasting: Collection[str] = ()) -> str:
    """Sets the variables of folders that this process and its children can't write; says where those are, or nothing.

    ``lasting`` names the variables whose folders have to last, which no temporary one does: who uses them refuses them.

    Raises:
        ConfigError: the place for them belongs to somebody else.
    """
    movable = {name: home for name, home in WRITTEN.items() if name not in lasting and not os.environ.get(name)}
    moved = {name: home for name, home in movable.items() if not can_be_written(home)}
    if not moved:
        return ""
    place = _own_folder()
    kept = {name: home for name, home in READ.items() if _is_read(name, moved) and os.access(expanded(home), os.R_OK)}
    os.environ.update({name: str(place / home.removeprefix("~/")) for name, home in moved.items()})
    os.environ.update({name: str(expanded(home)) for name, home in kept.items()})
    return f"{', '.join(moved.values())} can't be written and are in {place} instead"


def can_be_written(folder: str | Path) -> bool:
    """Whether files can be written into a folder, which may have to be made."""
    path = expanded(folder)
    # A home folder that nobody has stays a ``~``.
    if str(folder).startswith("~") and str(path).startswith("~"):
        return False
    there = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _is_read(name: str, moved: Mapping[str, str]) -> bool:
    """Whether a variable of ``READ`` is unset, and what it names lies in a folder that moves."""
    around = any(Path(READ[name]).is_relative_to(home) for home in moved.values())
    return around and not os.environ.get(name) and not (name.startswith("HF_") and os.environ.get("HF_HOME"))


def _own_folder() -> Path:
    """A folder of this user's among the temporary ones, the same each time: caches are worth to be found again."""
    # Importing it takes longer than all else here, and hardly anyone needs it.
    import tempfile

    place = Path(tempfile.gettempdir(), f"titanflow-{os.getuid()}")
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        status = place.lstat()
        is_own = place.is_dir() and status.st_uid == os.getuid() and not status.st_mode & 0o022
    except OSError:
        is_own = False
    if not is_own:
        found = f"found {expanded('~')}, which can't be written, and {place} can't be used in its place"
        raise ConfigError(Problem(found, "HOME", expected="a folder for caches: HOME=…"))
    return place
