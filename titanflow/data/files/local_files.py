"""Which local files a data config names, found without reading more than their sizes.

Names are taken as they are: only an entry that is no file and no folder is a pattern.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from titanflow.common.errors import DataError, Problem
from titanflow.common.home import expanded

FORMATS = {
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
    ".py": "text",
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
}
"""The format of a file for each ending that is known."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""Endings behind that of a text, JSON or CSV file."""
_KNOWN = f"{', '.join(FORMATS)}; all but .parquet also with {', '.join(COMPRESSIONS)} behind"
_A_DOCUMENT = "at least one document"
_EMPTY, _SAME_FILE, _HIDDEN, _LINKED, _NO_FILE = "empty", "the same file again", "hidden", "linked folder", "no file"
_FOLDER = "folder that a pattern matches"


@dataclass
class LocalFiles:
    """Files to read, in order, and how many others were passed over, by reason: an ending, ``empty``, …"""

    files: list[Path] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Ending:
    """What a file's name says of it: ``format`` (None where it isn't known) and ``compression`` (empty without)."""

    format: str | None
    suffix: str
    compression: str

    @classmethod
    def of(cls, file: Path) -> Ending:
        """The ending of a file's name, in whatever case."""
        compression = file.suffix.lower() if file.suffix.lower() in COMPRESSIONS else ""
        suffix = (Path(file.stem) if compression else file).suffix.lower()
        known = FORMATS.get(suffix)
        return cls(None if compression and known == "parquet" else known, suffix, compression)

    def __str__(self) -> str:
        return self.suffix + self.compression or "no ending"


def local_files(path: str | list[str], key: str = "data.path") -> LocalFiles:
    """The files behind ``data.path``: each entry a file, a folder (searched below it) or a pattern, sorted.

    A file counts once, whatever names lead to it. Folders that are linked into a folder are passed over, as are hidden
    and empty files and those of an unknown ending.

    Raises:
        DataError: an entry matches nothing, a file that is named or matched has an unknown ending, a named file is
            empty, a folder can't be read, or there is nothing but empty files. All such entries are reported together.
    """
    found, seen, problems = LocalFiles(), set[Path](), list[Problem]()
    for entry in [path] if isinstance(path, str) else path:
        try:
            of_entry = _files_of(str(entry), key)
        except DataError as error:
            problems += error.problems
            continue
        found.passed_over += of_entry.passed_over
        for file in of_entry.files:
            real = file.resolve()
            found.passed_over[_SAME_FILE] += real in seen
            found.files += [] if real in seen else [file]
            seen.add(real)
    if problems:
        raise DataError(problems)
    found.passed_over = +found.passed_over
    return found


def _files_of(entry: str, key: str) -> LocalFiles:
    path = expanded(entry)
    if path.is_file():
        return _named(path, key)
    if path.is_dir():
        found, what = _below(path, key), f"the folder {path}"
    elif any(character in entry for character in "*?["):
        found, what = _matched(path, key), f"the pattern {entry}{_looked_in(path)}"
    else:
        expected = "a file, a folder or a pattern such as texts/**/*.txt"
        if os.path.lexists(path):
            what = "leads nowhere" if path.is_symlink() else "is neither a file nor a folder"
            raise DataError(Problem(f"{entry} {what}", key, "", expected))
        raise DataError(Problem(f"{entry} isn't there{_looked_in(path)}", key, "", expected, _first_missing(path)))
    if found.files:
        return found
    others = ", ".join(f"{count} × {reason}" for reason, count in found.passed_over.items() if reason != _EMPTY)
    if found.passed_over[_EMPTY]:
        raise DataError(Problem(f"{what} has nothing but empty files", key, expected=_A_DOCUMENT))
    message = f"{what} has no file to read" + (f"; passed over: {others}" if others else "")
    raise DataError(Problem(message, key, expected=f"files ending in {_KNOWN}"))


def _named(path: Path, key: str) -> LocalFiles:
    if problem := _unknown(path, key):
        raise DataError(problem)
    if path.stat().st_size == 0:
        raise DataError(Problem(f"{path} is empty", key, expected=_A_DOCUMENT))
    return LocalFiles([path])


def _matched(pattern: Path, key: str) -> LocalFiles:
    # Path.glob takes no absolute pattern.
    matches = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207
    files = [file for file in matches if file.is_file()]
    read_from = {folder for file in files for folder in file.parents}
    folders = [one for one in matches if one.is_dir() and one not in read_from]
    found = _filled(files)
    others = Counter({_FOLDER: len(folders), _NO_FILE: sum(not one.is_file() and not one.is_dir() for one in matches)})
    found.passed_over += +others
    if unknown := [problem for file in found.files if (problem := _unknown(file, key))]:
        raise DataError(unknown)
    return found


def _below(folder: Path, key: str) -> LocalFiles:
    """What lies below a folder; links to folders, which may lead in circles, aren't followed."""

    def refuse(error: OSError) -> None:
        raise DataError(Problem(f"{error.filename} can't be read: {error.strerror}", key)) from error

    passed_over, files = Counter[str](), list[Path]()
    for parent, folders, names in os.walk(folder, onerror=refuse):
        here = Path(parent)
        hidden = [name for name in (*folders, *names) if name.startswith(".")]
        links = [name for name in folders if (here / name).is_symlink() and name not in hidden]
        passed_over += Counter({_HIDDEN: len(hidden), _LINKED: len(links)})
        folders[:] = [name for name in folders if name not in (*hidden, *links)]
        for name in names:
            file = here / name
            if not name.startswith("."):
                reason = _reason(file)
                passed_over[reason] += bool(reason)
                files += [] if reason else [file]
    found = _filled(sorted(files))
    return LocalFiles(found.files, +passed_over + found.passed_over)


def _reason(file: Path) -> str:
    """Why a folder's file is passed over, whatever it holds; empty where it isn't."""
    if not file.is_file():
        return _NO_FILE
    ending = Ending.of(file)
    return "" if ending.format else str(ending)


def _filled(files: Iterable[Path]) -> LocalFiles:
    there = list(files)
    filled = [file for file in there if file.stat().st_size]
    return LocalFiles(filled, +Counter({_EMPTY: len(there) - len(filled)}))


def _unknown(file: Path, key: str) -> Problem | None:
    ending = Ending.of(file)
    if ending.format:
        return None
    return Problem(f"{file} has an ending that isn't known: {ending}", key, expected=_KNOWN)


def _looked_in(path: Path) -> str:
    return "" if path.is_absolute() else f" (looked for it in {Path.cwd()})"


def _first_missing(path: Path) -> str:
    for parent in reversed(path.absolute().parents):
        if not parent.exists():
            return f"its folder {parent} doesn't exist either"
    return "check the spelling; relative paths count from the folder that the command is run in"
