"""The sources of the running interpreter's standard library as pretraining text, with modules held out by name.

Two things are held out, and must not be confused:

* :data:`HELD_OUT_MODULES`: their source is in no pretraining text and their names are in no training chat. Other
  modules may import or mention them, as real text does.
* held-out names (:func:`titanflow.data.stdlib.chats.is_held_out`): they are in no training chat. The source that
  defines them may be in the pretraining text, unless their module is held out too.

Both are divided by module (:func:`held_out_part`): ``dev`` is for validation and for choices that are made by scores,
``test`` for reported results.
"""

from __future__ import annotations

import functools
import hashlib
import sysconfig
import tokenize
from itertools import islice
from pathlib import Path

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.training import Part

HELD_OUT_MODULES = (
    *("bisect", "calendar", "cmd", "colorsys", "copy", "csv", "fractions", "graphlib"),
    *("heapq", "queue", "sched", "shelve", "shlex", "statistics", "string", "textwrap"),
)
"""Modules that no training text or chat is made from: about 250 kB, 3 % of the library, half of it in each part."""
DEV_SHARE = 0.3
"""Share of the modules that belong to ``dev``."""

# Tests, bundled programs and tables of character sets: large, and hardly the library's text.
_LEFT_OUT = frozenset(
    {
        *("site-packages", "dist-packages", "lib-dynload", "__pycache__", "__phello__"),
        *("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "tkinter", "_pyrepl"),
        *("distutils", "ensurepip", "msilib", "encodings", "pydoc_data"),
    }
)
# The build writes these for one machine.
_BUILD_FILES = ("_sysconfigdata", "__hello__")


def stdlib_folder() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def held_out_part(module: str) -> Part:
    """The part that the held-out text and names of a top-level module belong to, by a hash of the module's name."""
    return "dev" if name_share(module) < DEV_SHARE else "test"


def name_share(name: str) -> float:
    """A number from 0 to below 1 that depends only on the name."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8


def source_files(part: str = "train") -> list[Path]:
    """The library's source files of one part (``train``, ``dev`` or ``test``), sorted by path."""
    root = stdlib_folder()
    files = _parted(root).get(part, [])
    if not files:
        message = f"the interpreter's standard library has no sources in {root}"
        hint = "run with a Python that ships its library as .py files, or give data.path"
        raise DataError(Problem(message, "data.source", hint=hint))
    return files


def read_source(file: Path) -> str:
    """A source file's text, decoded as Python decodes it."""
    with tokenize.open(file) as source:
        return source.read()


def documents(part: str = "train", limit: int | None = None) -> list[tuple[str, Path]]:
    """The text of each source file of ``part``, and the file, at most ``limit``; empty files are skipped."""
    found = ((text, file) for file in source_files(part) if (text := read_source(file)).strip())
    return list(islice(found, limit))


@functools.cache
def _parted(root: Path) -> dict[str, list[Path]]:
    # Cached: a plan asks for the parts for each stage's data, and the library doesn't change meanwhile.
    found: dict[str, list[Path]] = {}
    for file in _walk(root):
        module = file.relative_to(root).parts[0].removesuffix(".py")
        part = held_out_part(module) if module in HELD_OUT_MODULES else "train"
        found.setdefault(part, []).append(file)
    return found


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if entry.name not in _LEFT_OUT and not entry.name.startswith("config-"):
                found += _walk(entry)
        elif entry.suffix == ".py" and not entry.name.startswith(_BUILD_FILES):
            found.append(entry)
    return found
