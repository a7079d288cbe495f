"""Reads the beginning of a file, so that a look at it takes a bounded time however large it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.common.errors import DataError, Problem
from titanflow.data.files.file_rows import (
    BYTE_ORDER_MARK,
    Unit,
    elements,
    numbered,
    opened,
    origin_of,
    rows_of,
    utf8_text,
)
from titanflow.data.files.json_rows import as_mapping
from titanflow.data.files.local_files import KEY, Ending

COMPRESSED = 3
"""Bytes of text behind one byte of a compressed file that is read only in part: assumed."""
TEXT, LIST = "text", "JSON list"
_NAMES = {"text": TEXT, "json": "JSON lines", "csv": "CSV", "parquet": "Parquet"}
_PEEK = 4096


@dataclass(frozen=True)
class Head:
    """The first rows of a file.

    Attributes:
        kind: the file's format in words: text, JSON lines, JSON list, CSV, Parquet; with its compression.
        unit: the unit of places: lines, or rows from 1.
        rows: each row with its place: a mapping; of a file of plain text its text alone, at line 1.
        broken: the rows that are no mapping, each with its place.
        size: bytes of text that the rows take.
        whole: the rows of the whole file, and their bytes; estimated if not all was read.
        is_whole: whether the file was read to its end.
    """

    kind: str
    unit: Unit
    rows: list[tuple[int, Any]] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)
    size: int = 0
    whole: tuple[int, int] = (0, 0)
    is_whole: bool = True

    @property
    def is_text(self) -> bool:
        return self.kind.startswith(TEXT)


def read_head(file: Path, size: int) -> Head:
    """The first rows of a file, of about ``size`` bytes.

    Raises:
        DataError: it can't be read, or there is a mistake that ends the reading, as a CSV row of too few cells.
    """
    kind = _kind(file)
    if kind.startswith(TEXT):
        return _of_text(file, size, kind)
    if kind.startswith(LIST) and (Ending.of(file).compression or file.stat().st_size > size):
        return _of_list(file, size, kind)
    found = rows_of(file)
    return _of_rows(file, found.rows, found.unit, size, kind)


def _kind(file: Path) -> str:
    ending = Ending.of(file)
    name = LIST if ending.format == "json" and _opens_list(file) else _NAMES[str(ending.format)]
    return f"{name}, {ending.compression}" if ending.compression else name


def _of_text(file: Path, size: int, kind: str) -> Head:
    text, is_whole = _first_text(file, size)
    read = len(text.encode())
    return Head(kind, "line", [(1, text)], [], read, (1, _bytes(file, read, is_whole)), is_whole)


def _first_text(file: Path, size: int) -> tuple[str, bool]:
    """The first lines of a file, and whether these are all; of a file that is one long line the first characters."""
    with opened(file) as stream:
        raw = stream.read(size + 1)
    if len(raw) <= size:
        return utf8_text(file, raw), True
    end = raw.rfind(b"\n") + 1 or _between_characters(raw)
    return utf8_text(file, raw[:end]), False


def _between_characters(raw: bytes) -> int:
    """A place near the end where no character is cut: UTF-8's have at most four bytes, and begin with no 10xxxxxx."""
    return next((end for end in range(len(raw) - 1, max(0, len(raw) - 5), -1) if raw[end] & 0xC0 != 0x80), len(raw))


def _opens_list(file: Path) -> bool:
    with opened(file) as stream:
        return stream.read(_PEEK).removeprefix(BYTE_ORDER_MARK.encode()).lstrip().startswith(b"[")


def _of_list(file: Path, size: int, kind: str) -> Head:
    """A large list: it is read as far as its beginning goes, for a reader of the whole would hold all of it."""
    text, is_whole = _first_text(file, size)
    found: list[tuple[int, str]] = []
    try:
        found.extend(numbered(text, elements(text)))
    except ValueError as fault:
        # Where the beginning is cut off, an element is, too.
        if is_whole or not found:
            message, place = f"not JSON: {fault}", f"{file}:{getattr(fault, 'lineno', 1)}"
            raise DataError(Problem(message, KEY, place, "a list of rows")) from fault
    return _of_rows(file, found, "line", size, kind, is_whole)


def _of_rows(
    file: Path, found: Iterable[tuple[int, Any]], unit: Unit, size: int, kind: str, is_whole: bool = True
) -> Head:
    rows, broken, read = list[tuple[int, Any]](), list[Problem](), 0
    for place, row, length in _measured(found):
        mapping = as_mapping(row)
        if isinstance(mapping, Problem):
            broken.append(Problem(mapping.message, "", origin_of(file, unit, place), mapping.expected))
        else:
            rows.append((place, mapping))
        read += length
        if read >= size:
            is_whole = False
            break
    count = len(rows) + len(broken)
    if kind.startswith("Parquet"):
        whole = _parquet_rows(file)
        return Head(kind, unit, rows, broken, read, (whole, read * whole // max(1, count)), count >= whole)
    total = _bytes(file, read, is_whole)
    return Head(kind, unit, rows, broken, read, (count * total // max(1, read), total), is_whole)


def _measured(rows: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any, int]]:
    """Each row with the bytes that its text takes, about."""
    for place, row in rows:
        length = len(row.encode()) if isinstance(row, str) else sum(len(str(value)) + 1 for value in row.values())
        yield place, row, length + 1


def _bytes(file: Path, read: int, is_whole: bool) -> int:
    """The bytes of a whole file's text: read, or else estimated."""
    if is_whole:
        return read
    return max(read, file.stat().st_size * (COMPRESSED if Ending.of(file).compression else 1))


def _parquet_rows(file: Path) -> int:
    from pyarrow import parquet

    return int(parquet.read_metadata(file).num_rows)
