"""The sources of the running interpreter's standard library as pretraining text, with modules held out by name.

Two kinds of held-out things must not be confused:

* :data:`HELD_OUT_MODULES`: their source is in no pretraining text and none of their names in any chat. Other
  modules may import or mention them, as real text does.
* held-out names (:func:`titanflow.data.stdlib_chats.is_held_out`): in no chat that a model is fine-tuned on; the
  source that defines them may be in the pretraining text, unless their module is held out too.
"""

from __future__ import annotations

import sysconfig
import tokenize
from itertools import islice
from pathlib import Path

from titanflow.errors import DataError, Problem

HELD_OUT_MODULES = (
    "bisect",
    "calendar",
    "cmd",
    "colorsys",
    "copy",
    "csv",
    "fractions",
    "graphlib",
    "heapq",
    "queue",
    "sched",
    "shelve",
    "shlex",
    "statistics",
    "string",
    "textwrap",
)
"""Modules that no training text or chat is made of: about 250 kB, 3 % of the library."""

# Tests, bundled programs and tables of character sets: large, and not what one would call the library's text.
_LEFT_OUT = frozenset(
    {
        *("site-packages", "dist-packages", "lib-dynload", "__pycache__", "__phello__"),
        *("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "tkinter", "_pyrepl"),
        *("distutils", "ensurepip", "msilib", "encodings", "pydoc_data"),
    }
)
# Written by the build for one machine.
_BUILD_FILES = ("_sysconfigdata", "__hello__")


def stdlib_folder() -> Path:
    """Where the running interpreter's standard library lies."""
    return Path(sysconfig.get_paths()["stdlib"])


def source_files(part: str = "train") -> list[Path]:
    """The library's source files of one part (``train`` or ``heldout``), sorted by path.

    Raises:
        DataError: this interpreter ships no sources.
    """
    root = stdlib_folder()
    files = [file for file in _walk(root) if _is_held_out(file.relative_to(root)) == (part == "heldout")]
    if not files:
        raise DataError(
            Problem(
                f"the interpreter's standard library has no sources in {root}",
                "data.source",
                hint="run with a Python that ships its library as .py files, or give data.path",
            )
        )
    return files


def read_source(file: Path) -> str:
    """A source file's text, decoded as Python decodes it."""
    with tokenize.open(file) as source:
        return source.read()


def documents(part: str = "train", limit: int | None = None) -> list[tuple[str, Path]]:
    """The text of each source file of ``part``, and the file, at most ``limit``; empty files are passed over."""
    texts = ((read_source(file), file) for file in source_files(part))
    return list(islice(((text, file) for text, file in texts if text.strip()), limit))


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if entry.name not in _LEFT_OUT and not entry.name.startswith("config-"):
                found += _walk(entry)
        elif entry.suffix == ".py" and not entry.name.startswith(_BUILD_FILES):
            found.append(entry)
    return found


def _is_held_out(relative: Path) -> bool:
    return relative.parts[0].removesuffix(".py") in HELD_OUT_MODULES
