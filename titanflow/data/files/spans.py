"""Divides large files where rows end, so that several processes read one."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from titanflow.config.keys.training import Document
from titanflow.data.files.local_files import Ending

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

# A blank line before a letter: a paragraph certainly begins there.
_PARAGRAPH = re.compile(rb"\n\r?\n(?=[A-Za-z0-9])")
_BLOCK = 1 << 20


class Span(NamedTuple):
    """A part of a file: its bytes from ``start`` to before ``end`` (None: its end), of Parquet its row groups."""

    start: int = 0
    end: int | None = None


WHOLE = Span()


def spans(file: Path, document: Document, has_row_a_line: Callable[[Path], bool], size: int) -> list[Span]:
    """The spans of about ``size`` bytes in which a file can be read; one that can't be divided has one.

    Lines, paragraphs and row groups can be told apart anywhere in a file. A compressed file, one document, a JSON list
    and CSV, whose quotes may hold line feeds, can only be read from their beginning.
    """
    ending, total = Ending.of(file), file.stat().st_size
    if ending.compression or total < 2 * size:
        return [WHOLE]
    if ending.format == "parquet":
        return _joined(_row_groups(file, size))
    if ending.format == "text" and document != "file":
        return _joined(_cuts(file, total, size, _behind_line if document == "line" else _behind_paragraph))
    if ending.format == "json" and has_row_a_line(file):
        return _joined(_cuts(file, total, size, _behind_line))
    return [WHOLE]


def length(file: Path, span: Span) -> int:
    """The lines of a span, however they end, or the rows of Parquet: by so many a later span's places are shifted."""
    ending = Ending.of(file)
    if ending.format == "parquet":
        metadata = _parquet(file).metadata
        last = metadata.num_row_groups if span.end is None else span.end
        return sum(metadata.row_group(number).num_rows for number in range(span.start, last))
    with file.open("rb") as stream:
        text = SpanOf(stream, span).read()
    feeds = text.count(b"\n")
    # In JSON lines only a line feed ends a line.
    return feeds if ending.format == "json" else feeds + text.count(b"\r") - text.count(b"\r\n")


class SpanOf(io.RawIOBase):
    """The bytes of a span, as a file."""

    def __init__(self, stream: IO[bytes], span: Span) -> None:
        super().__init__()
        stream.seek(span.start)
        self._stream = stream
        self._left = None if span.end is None else span.end - span.start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = self._stream.read(count)
        buffer[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
        return len(data)


def _joined(cuts: Iterator[int]) -> list[Span]:
    starts = [0, *cuts]
    return [Span(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _cuts(file: Path, total: int, size: int, behind: Callable[[IO[bytes], int], int]) -> Iterator[int]:
    with file.open("rb") as stream:
        cut = 0
        while cut + 2 * size <= total:
            cut = behind(stream, cut + size)
            if cut >= total:
                return
            yield cut


def _behind_line(stream: IO[bytes], position: int) -> int:
    stream.seek(position)
    while (line := stream.readline(_BLOCK)) and not line.endswith(b"\n"):
        pass
    return stream.tell()


def _behind_paragraph(stream: IO[bytes], position: int) -> int:
    """Where the first paragraph behind ``position`` begins; the file's end if there is none."""
    stream.seek(position)
    block, start = stream.read(_BLOCK), position
    while not (found := _PARAGRAPH.search(block)):
        if not (more := stream.read(_BLOCK)):
            return start + len(block)
        # A match has at most four bytes.
        start, block = start + len(block[:-3]), block[-3:] + more
    return start + found.end()


def _row_groups(file: Path, size: int) -> Iterator[int]:
    metadata, taken = _parquet(file).metadata, 0
    for number in range(metadata.num_row_groups):
        if taken >= size:
            yield number
            taken = 0
        taken += metadata.row_group(number).total_byte_size


def _parquet(file: Path) -> ParquetFile:
    from pyarrow import parquet

    return parquet.ParquetFile(file)
