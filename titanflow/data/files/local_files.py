"""Finds the local files that a data config names, reading no more than their sizes.

An entry counts as a pattern only if no file or folder has that name.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from titanflow.common.errors import DataError, Problem
from titanflow.common.files import expanded

KEY = "data.path"
"""The key that names the files."""
FORMATS = {
    **dict.fromkeys((".txt", ".md", ".rst", ".py"), "text"),
    **dict.fromkeys((".jsonl", ".json"), "json"),
    ".parquet": "parquet",
    **dict.fromkeys((".csv", ".tsv"), "csv"),
}
"""Known endings, each with the file's format."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""Endings that may follow that of a text, JSON or CSV file."""
_KNOWN = f"{', '.join(FORMATS)}; all but .parquet also with {', '.join(COMPRESSIONS)} behind"
_A_DOCUMENT = "at least one document, or row"
_EMPTY, _SAME_FILE, _HIDDEN, _LINKED, _NO_FILE = "empty", "the same file again", "hidden", "linked folder", "no file"
_FOLDER = "folder that a pattern matches"


@dataclass
class LocalFiles:
    """Files to read, in order, and the number of skipped ones by reason: an ending, ``empty``, …"""

    files: list[Path] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Ending:
    """What a file's name tells: ``format`` (None if unknown) and ``compression`` (empty if there is none)."""

    format: str | None
    suffix: str
    compression: str

    @classmethod
    def of(cls, file: Path) -> Ending:
        compression = file.suffix.lower() if file.suffix.lower() in COMPRESSIONS else ""
        suffix = (Path(file.stem) if compression else file).suffix.lower()
        known = FORMATS.get(suffix)
        return cls(None if compression and known == "parquet" else known, suffix, compression)

    def __str__(self) -> str:
        return self.suffix + self.compression or "no ending"


def local_files(path: str | list[str]) -> LocalFiles:
    """The files of ``data.path``, whose entries are files, folders (with everything below them) or patterns.

    The files of each entry are sorted. A file counts once, whatever names lead to it. Linked folders within a folder
    are skipped, as are hidden and empty files and those with an unknown ending.

    Raises:
        DataError: an entry matches nothing, a named or matched file has an unknown ending, a named file is empty, a
            folder can't be read, or all files are empty. All such entries are reported together.
    """
    found, seen, problems = LocalFiles(), set[Path](), list[Problem]()
    for entry in [path] if isinstance(path, str) else path:
        try:
            of_entry = _files_of(str(entry))
        except DataError as error:
            problems += error.problems
            continue
        found.passed_over += of_entry.passed_over
        for file in of_entry.files:
            real = file.resolve()
            if real in seen:
                found.passed_over[_SAME_FILE] += 1
            else:
                found.files.append(file)
            seen.add(real)
    if problems:
        raise DataError(problems)
    return found


def _files_of(entry: str) -> LocalFiles:
    path = expanded(entry)
    if path.is_file():
        return _named(path)
    if path.is_dir():
        found, what = _below(path), f"the folder {path}"
    elif any(character in entry for character in "*?["):
        found, what = _matched(path), f"the pattern {entry}{_looked_in(path)}"
    else:
        expected = "a file, a folder or a pattern such as texts/**/*.txt"
        if os.path.lexists(path):
            what = "leads nowhere" if path.is_symlink() else "is neither a file nor a folder"
            raise DataError(Problem(f"{entry} {what}", KEY, "", expected))
        raise DataError(Problem(f"{entry} isn't there{_looked_in(path)}", KEY, "", expected, _first_missing(path)))
    if found.files:
        return found
    others = ", ".join(f"{count} × {reason}" for reason, count in found.passed_over.items() if reason != _EMPTY)
    if found.passed_over[_EMPTY]:
        raise DataError(Problem(f"{what} has nothing but empty files", KEY, expected=_A_DOCUMENT))
    message = f"{what} has no file to read" + (f"; passed over: {others}" if others else "")
    raise DataError(Problem(message, KEY, expected=f"files ending in {_KNOWN}"))


def _named(path: Path) -> LocalFiles:
    if problem := _unknown(path):
        raise DataError(problem)
    if path.stat().st_size == 0:
        raise DataError(Problem(f"{path} is empty", KEY, expected=_A_DOCUMENT))
    return LocalFiles([path])


def _matched(pattern: Path) -> LocalFiles:
    # Path.glob doesn't accept absolute patterns.
    matches = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207
    files = [file for file in matches if file.is_file()]
    read_from = {folder for file in files for folder in file.parents}
    folders = [one for one in matches if one.is_dir() and one not in read_from]
    found = _filled(files)
    others = Counter({_FOLDER: len(folders), _NO_FILE: sum(not one.is_file() and not one.is_dir() for one in matches)})
    found.passed_over += +others
    if unknown := [problem for file in found.files if (problem := _unknown(file))]:
        raise DataError(unknown)
    return found


def _below(folder: Path) -> LocalFiles:
    """The files below a folder. Links to folders aren't followed, because they may form circles."""

    def refuse(error: OSError) -> None:
        raise DataError(Problem(f"{error.filename} can't be read: {error.strerror}", KEY)) from error

    passed_over, files = Counter[str](), list[Path]()
    for parent, folders, names in os.walk(folder, onerror=refuse):
        here = Path(parent)
        hidden = [name for name in (*folders, *names) if name.startswith(".")]
        links = [name for name in folders if (here / name).is_symlink() and name not in hidden]
        passed_over += Counter({_HIDDEN: len(hidden), _LINKED: len(links)})
        folders[:] = [name for name in folders if name not in (*hidden, *links)]
        for file in (here / name for name in names if not name.startswith(".")):
            if not file.is_file():
                passed_over[_NO_FILE] += 1
            elif (ending := Ending.of(file)).format:
                files.append(file)
            else:
                passed_over[str(ending)] += 1
    found = _filled(sorted(files))
    return LocalFiles(found.files, +passed_over + found.passed_over)


def _filled(files: list[Path]) -> LocalFiles:
    filled = [file for file in files if file.stat().st_size]
    return LocalFiles(filled, +Counter({_EMPTY: len(files) - len(filled)}))


def _unknown(file: Path) -> Problem | None:
    if (ending := Ending.of(file)).format:
        return None
    return Problem(f"{file} has an ending that isn't known: {ending}", KEY, expected=_KNOWN)


def _looked_in(path: Path) -> str:
    return "" if path.is_absolute() else f" (looked for it in {Path.cwd()})"


def _first_missing(path: Path) -> str:
    for parent in reversed(path.absolute().parents):
        if not parent.exists():
            return f"its folder {parent} doesn't exist either"
    return "check the spelling; relative paths count from the folder that the command is run in"
