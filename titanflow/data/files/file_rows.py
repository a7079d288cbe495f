"""Reads the rows of one local file, each with its place.

A file is opened by exactly its own name and read to its end, or an error says where reading failed. No row is silently
split, joined or left out.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from titanflow.common.errors import DataError, Problem
from titanflow.common.staging import no_room
from titanflow.config.keys.training import Document
from titanflow.data.files.csv_rows import check_names, csv_rows
from titanflow.data.files.local_files import KEY, Ending
from titanflow.data.files.members import Members
from titanflow.data.files.spans import WHOLE, Span, SpanOf

if TYPE_CHECKING:
    import pyarrow

Unit = Literal["line", "row"]
"""The unit of places in a file: its lines, or its rows from 1."""
Row = str | dict[str, Any]
"""A row as JSON text, or as columns."""

BYTE_ORDER_MARK = "\ufeff"
# Rows of a Parquet file to read at a time.
_BATCH = 256
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True)
class FileRows:
    """A file's rows, each with its place."""

    unit: Unit
    rows: Iterable[tuple[int, Row]]


def origin_of(file: str | Path, unit: Unit, place: int) -> str:
    """Where a row stands: ``file:line``, or ``file:row N`` if the format has no lines."""
    return f"{file}:{place}" if unit == "line" else f"{file}:row {place}"


@contextmanager
def opened(file: Path, span: Span = WHOLE) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed by its ending; errors of reading inside the block become a DataError too."""
    try:
        with _decompressed(file) as stream:
            yield stream if span == WHOLE else io.BufferedReader(SpanOf(stream, span), 1 << 20)
    except GeneratorExit:
        # Who reads no further waits for no import.
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, _arrow_error()) as error:
        if no_room(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(Problem(f"can't be read: {reason}", KEY, str(file))) from error


def _decompressed(file: Path) -> Any:
    compression = Ending.of(file).compression
    if compression == ".gz":
        return gzip.open(file)
    if compression == ".bz2":
        return io.BufferedReader(Members(file, bz2.BZ2Decompressor), 1 << 20)
    if compression == ".xz":
        return io.BufferedReader(Members(file, lzma.LZMADecompressor), 1 << 20)
    if compression == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd"), 1 << 20)
    return file.open("rb")


def _arrow_error() -> type[Exception]:
    # A function, so that only an error has to wait for the import.
    import pyarrow

    return pyarrow.ArrowException


def texts_of(file: Path, document: Document, span: Span = WHOLE) -> Iterator[tuple[int, str]]:
    """The documents of a file of plain text, each with its first line's number, counted from the span's beginning.

    A document is the whole file, a paragraph between blank lines, or a line.
    """
    with opened(file, span) as stream:
        if document == "line":
            for number, read in enumerate(_decoded(file, io.TextIOWrapper(stream, _encoding(span))), 1):
                if read.strip():
                    yield number, read.removesuffix("\n")
            return
        text = utf8_text(file, stream.read(), span)
    yield from [(1, text)] if document == "file" else paragraphs(text)


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """The paragraphs of a text, which blank lines separate, each with the line on which it begins."""
    gaps = list(_BLANK_LINES.finditer(text))
    spans = zip([0, *(gap.end() for gap in gaps)], [*(gap.start() for gap in gaps), len(text)], strict=True)
    yield from ((line, paragraph) for line, paragraph in numbered(text, spans) if paragraph.strip())


def numbered(text: str, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    """The spans of a text, each with the line on which it begins."""
    line, counted = 1, 0
    for start, end in spans:
        line += text.count("\n", counted, start)
        counted = start
        yield line, text[start:end]


def _encoding(span: Span) -> str:
    # A byte order mark stands only at a file's beginning; elsewhere it is a character.
    return "utf-8" if span.start else "utf-8-sig"


def rows_of(file: Path, columns: list[str] | None = None, span: Span = WHOLE) -> FileRows:
    """The rows of a JSON, CSV or Parquet file; of Parquet only ``columns``, if they are given.

    A JSON file is a list of rows, or has one row per line, whatever its ending says. Places count from the span's
    beginning.

    Raises:
        DataError: it can't be read; also raised while the caller iterates over the rows.
    """
    kind = Ending.of(file).format
    if kind == "json":
        return _json_rows(file) if span == WHOLE else FileRows("line", _text_lines(file, span))
    if kind == "csv":
        return FileRows("line", _csv_rows(file))
    return FileRows("row", _parquet_rows(file, columns, span))


def parquet_schema(file: Path) -> pyarrow.Schema:
    from pyarrow import parquet

    with opened(file) as stream:
        schema = parquet.ParquetFile(stream).schema_arrow
        check_names(str(file), schema.names)
        return schema


def _parquet_rows(file: Path, columns: list[str] | None, span: Span) -> Iterator[tuple[int, Row]]:
    from pyarrow import parquet

    number = 0
    with opened(file) as stream:
        opened_file = parquet.ParquetFile(stream)
        check_names(str(file), opened_file.schema_arrow.names)
        groups = range(opened_file.num_row_groups)[span.start : span.end]
        for batch in opened_file.iter_batches(_BATCH, row_groups=list(groups), columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _csv_rows(file: Path) -> Iterator[tuple[int, Row]]:
    with opened(file) as stream:
        yield from csv_rows(file, _decoded(file, io.TextIOWrapper(stream, "utf-8-sig", newline="")))


def _decoded(file: Path, lines: Iterable[str]) -> Iterator[str]:
    try:
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise _holds_nul(file, number)
            yield line
    except UnicodeDecodeError:
        # The error is somewhere in a block of lines. Reading again line by line raises it with its place.
        for _ in _text_lines(file):
            pass
        raise


def has_row_a_line(file: Path) -> bool:
    """Whether a JSON file has a row on each line; False too if it can't be read."""
    try:
        with opened(file) as stream:
            _, head = _first_line(stream)
    except DataError:
        return False
    return not _opens_list(head) and (Ending.of(file).suffix == ".jsonl" or _is_json(head))


def _first_line(stream: IO[bytes]) -> tuple[int, bytes]:
    """The number of blank lines, and the line behind them."""
    blank = 0
    while (head := stream.readline()) and not head.strip():
        blank += 1
    return blank, head


def _opens_list(head: bytes) -> bool:
    return head.removeprefix(BYTE_ORDER_MARK.encode()).lstrip().startswith(b"[")


def _json_rows(file: Path) -> FileRows:
    if has_row_a_line(file):
        return FileRows("line", _text_lines(file))
    with opened(file) as stream:
        blank, head = _first_line(stream)
        is_list = _opens_list(head)
        text = utf8_text(file, head + stream.read())
    try:
        rows = list(numbered(text, elements(text) if is_list else _values(text)))
    except (ValueError, RecursionError) as fault:
        line = blank + getattr(fault, "lineno", 1)
        reason = getattr(fault, "msg", None) or str(fault)
        expected = "a list of rows, or a row a line"
        raise DataError(Problem(f"not JSON: {reason}", KEY, f"{file}:{line}", expected)) from fault
    if len({line for line, _ in rows}) == len(rows):
        return FileRows("line", ((blank + line, row) for line, row in rows))
    return FileRows("row", enumerate((row for _, row in rows), 1))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _text_lines(file: Path, span: Span = WHOLE) -> Iterator[tuple[int, str]]:
    """The lines that aren't blank, each with its number; only a line feed ends a line."""
    with opened(file, span) as stream:
        for number, raw in enumerate(stream, 1):
            try:
                line = raw.decode(_encoding(span) if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise _not_utf8(file, number, error) from error
            if "\0" in line:
                raise _holds_nul(file, number)
            if line.strip():
                yield number, line


def utf8_text(file: Path, raw: bytes, span: Span = WHOLE) -> str:
    """A whole file's text, without its byte order mark and with line feeds as its only line ends."""
    if (at := raw.find(b"\0")) >= 0:
        raise _holds_nul(file, 1 + raw[:at].count(b"\n"))
    try:
        return raw.decode(_encoding(span)).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        # The decoder counts from behind the byte order mark, which it removes.
        raise _not_utf8(file, 1 + raw[: error.start].count(b"\n"), error) from error


def _holds_nul(file: Path, line: int) -> DataError:
    # UTF-16 text without a byte order mark is valid UTF-8 with a NUL at every other place.
    hint = "if it is UTF-16: iconv -f UTF-16LE -t utf-8"
    return DataError(Problem("a NUL stands in the text", KEY, f"{file}:{line}", "a file in UTF-8", hint))


def _not_utf8(file: Path, line: int, error: UnicodeDecodeError) -> DataError:
    hint = "write it as UTF-8: iconv -f <its encoding> -t utf-8"
    return DataError(Problem(f"not UTF-8: {error.reason} at byte {error.start}", KEY, f"{file}:{line}", "", hint))


def elements(text: str) -> Iterator[tuple[int, int]]:
    decoder = json.JSONDecoder()
    position = _after(text, 0, "[")
    is_open = text[position : position + 1] != "]"
    while is_open:
        _, end = decoder.raw_decode(text, position)
        yield position, end
        position = _after_space(text, end)
        is_open = text[position : position + 1] != "]"
        if is_open:
            position = _after(text, position, ",")
    rest = _after(text, position, "]")
    if rest < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)


def _values(text: str) -> Iterator[tuple[int, int]]:
    """The spans of JSON values that follow one another."""
    decoder = json.JSONDecoder()
    position = _after_space(text, 0)
    while position < len(text):
        _, end = decoder.raw_decode(text, position)
        yield position, end
        position = _after_space(text, end)


def _after(text: str, position: int, character: str) -> int:
    """The position behind ``character``, which must come next, and behind any space around it."""
    position = _after_space(text, position)
    if text[position : position + 1] != character:
        raise json.JSONDecodeError(f"Expecting {character!r}", text, position)
    return _after_space(text, position + 1)


def _after_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position
