"""Which local files a data config names, found without reading more than their sizes."""

from __future__ import annotations

import glob
from pathlib import Path

from titanflow.errors import DataError, Problem

LOADERS = {
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
    ".py": "text",
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
}
"""The ``datasets`` loader for each known extension."""
_KNOWN = ", ".join(LOADERS)
_A_DOCUMENT = "at least one document"


def local_files(path: str | list[str], key: str = "data.path") -> list[Path]:
    """The files behind ``data.path``: each entry a file, a folder (searched below it) or a pattern, sorted.

    Empty files of a folder or a pattern are passed over, as an empty ``__init__.py`` is.

    Raises:
        DataError: an entry matches nothing, a file that is named or matched has an unknown extension, a named
            file is empty, or there is nothing but empty files. All such entries are reported together.
    """
    entries = [path] if isinstance(path, str) else list(path)
    files: list[Path] = []
    problems: list[Problem] = []
    for entry in entries:
        found = _files_of(str(entry), key)
        problems += [item for item in found if isinstance(item, Problem)]
        files += [item for item in found if isinstance(item, Path) and item not in files]
    if problems:
        raise DataError(problems)
    return files


def _files_of(entry: str, key: str) -> list[Path | Problem]:
    path = Path(entry).expanduser()
    if path.is_file():
        empty = path.stat().st_size == 0
        return [_unknown(path, key) or (Problem(f"{path} is empty", key, expected=_A_DOCUMENT) if empty else path)]
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in LOADERS and _is_visible(file, path))
        what = f"the folder {path}"
    elif any(character in entry for character in "*?["):
        # Path.glob takes no absolute pattern.
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        found = [Path(name) for name in names if Path(name).is_file()]
        what = f"the pattern {entry}{_looked_in(path)}"
    else:
        expected = "a file, a folder or a pattern such as texts/**/*.txt"
        return [Problem(f"{entry} isn't there{_looked_in(path)}", key, "", expected, _first_missing(path))]
    if not found:
        return [Problem(f"{what} has no file to read", key, expected=f"files ending in {_KNOWN}")]
    if unknown := [problem for file in found if (problem := _unknown(file, key))]:
        return [*unknown]
    filled = [file for file in found if file.stat().st_size]
    return [*filled] or [Problem(f"{what} has nothing but empty files", key, expected=_A_DOCUMENT)]


def _is_visible(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def _unknown(file: Path, key: str) -> Problem | None:
    if file.suffix in LOADERS:
        return None
    return Problem(f"{file} has an extension that isn't known: {file.suffix or 'none'}", key, expected=_KNOWN)


def _looked_in(path: Path) -> str:
    return "" if path.is_absolute() else f" (looked for it in {Path.cwd()})"


def _first_missing(path: Path) -> str:
    for parent in reversed(path.absolute().parents):
        if not parent.exists():
            return f"its folder {parent} doesn't exist either"
    return "check the spelling; relative paths count from the folder that the command is run in"
