"""Reads documents from local files, Hugging Face datasets or the built-in source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.training import Data
from titanflow.data.chat.layout import LEFT_OUT
from titanflow.data.files.file_rows import FileRows, Unit, parquet_schema, rows_of, texts_of
from titanflow.data.files.json_rows import as_mapping, text_fault
from titanflow.data.files.local_files import Ending, local_files
from titanflow.data.files.read_source import read_source
from titanflow.data.files.sources import (
    MAX_PROBLEMS,
    PIECE,
    PLACE,
    Source,
    SourceFile,
    check_one_source,
    load_from_hub,
    problems_error,
)
from titanflow.data.files.spans import Span
from titanflow.data.parts.work import Work
from titanflow.data.stdlib.documented import documented
from titanflow.data.stdlib.text import documents

if TYPE_CHECKING:
    from datasets import Dataset

TEXT = "text"
"""The column that holds a document."""
BUILT_IN = {"stdlib": documents, "stdlib_documented": documented}
"""What reads the documents of each built-in source of text: at most so many of a part, each with its file."""


def load_text(data: Data, work: Work) -> Source:
    """Reads the documents that a data config names."""
    key = check_one_source(data)
    if data.text_column in data.leave_out:
        hint = "take it out of data.leave_out"
        raise DataError(Problem(f"{data.text_column!r} is what documents are read from", "data.leave_out", hint=hint))
    unread = Counter[str]()
    if data.source:
        source = _built_in(data)
    elif data.path:
        files = local_files(data.path)
        read = partial(text_rows, data=data)
        source = read_source(files, read, TEXT, data.limit, data.document, work, [data.document, data.text_column])
        unread.update(source.unread)
    else:
        loaded = load_from_hub(data)
        rows = _column(loaded, data, str(data.dataset))
        unread.update(dict.fromkeys(set(loaded.column_names) - {data.text_column}, len(rows)))
        source = Source(rows, [SourceFile(str(data.dataset))])
    if len(source.rows) == 0:
        raise DataError(Problem(f"{data.name} has no rows", f"data.{key}"))
    named = {f"{name} {LEFT_OUT}" if name in data.leave_out else name: count for name, count in unread.items()}
    return replace(source, unread=dict(sorted(named.items())))


def check_text(source: Source, data: Data, seq_len: int) -> None:
    """Refuses text before it is tokenised: rows without text, only blank ones, or too few bytes for a row."""
    found = source.rows.features[TEXT]
    key = "data.text_column"
    if getattr(found, "dtype", None) not in ("string", "large_string"):
        message = f"column {data.text_column!r} of {data.name} is {found}"
        raise DataError(Problem(message, key, expected="a column of text"))
    if source.rows.data[TEXT].null_count:
        rows = (row for row, text in enumerate(source.rows[TEXT]) if text is None)
        raise problems_error([Problem("the row has no text", data.text_column, source.origin(row)) for row in rows])
    if not any(text.strip() for text in source.rows[TEXT]):
        raise DataError(Problem("there is nothing but blank space", key, origin=source.origin(0)))
    # A token has one byte or more, so too few bytes are too few tokens in any vocabulary.
    if (size := sum(len(text.encode()) + 1 for text in islice(source.rows[TEXT], seq_len + 1))) <= seq_len:
        expected = f"more than training.seq_len={seq_len} tokens"
        raise DataError(Problem(f"{data.name} holds only {size} bytes", "data", source.origin(0), expected))


def text_rows(file: Path, span: Span, unread: Counter[str], data: Data) -> tuple[Unit, Iterable[tuple[int, str]]]:
    """The documents of a file's span; see :data:`titanflow.data.files.read_source.Reader`.

    Raises:
        DataError: it can't be read, lacks the column, or has rows without text, of which the first are named.
    """
    kind = Ending.of(file).format
    if kind == "text":
        return "line", texts_of(file, data.document, span)
    others = _check_parquet(file, data.text_column) if kind == "parquet" else []
    found = rows_of(file, [data.text_column], span)
    return found.unit, _texts(file, found, data.text_column, unread, others)


def _check_parquet(file: Path, column: str) -> list[str]:
    """Checks that a file's column is text; returns its other columns, which aren't read: they may be large."""
    from pyarrow import types

    schema = parquet_schema(file)
    if column not in schema.names:
        raise _no_column(str(file), column, schema.names)
    found = schema.field(column).type
    found = found.value_type if types.is_dictionary(found) else found
    if not any(is_text(found) for is_text in (types.is_string, types.is_large_string, types.is_string_view)):
        expected = "a column of text"
        raise DataError(Problem(f"column {column!r} of {file} is {found}", "data.text_column", expected=expected))
    return [name for name in schema.names if name != column]


def _texts(
    file: Path, found: FileRows, column: str, unread: Counter[str], others: list[str]
) -> Iterator[tuple[int, str]]:
    where, problems = SourceFile(str(file), found.unit), list[Problem]()
    without: list[str] | None = None
    has_column = False
    for place, read in found.rows:
        row = as_mapping(read)
        if isinstance(row, Problem):
            problems.append(replace(row, origin=where.origin(place)))
        elif column not in row:
            without = without or list(row)
            problems.append(Problem(f"the row has no {column!r}", "data.text_column", where.origin(place)))
        elif fault := text_fault(row[column]):
            has_column = True
            problems.append(Problem(fault, f"column {column!r}", where.origin(place), "a text"))
        else:
            has_column = True
            unread.update(others)
            unread.update(name for name, value in row.items() if name != column and value not in (None, "", [], {}))
            yield place, row[column]
        if len(problems) == MAX_PROBLEMS:
            problems.append(Problem(f"{file} was read no further"))
            break
    if without is not None and not has_column:
        raise _no_column(str(file), column, without)
    if problems:
        raise DataError(problems)


def _built_in(data: Data) -> Source:
    from datasets import Dataset

    read = BUILT_IN.get(data.source or "")
    if read is None:
        expected = " or ".join(BUILT_IN)
        raise DataError(Problem(f"there is no text in the source {data.source}", "data.source", expected=expected))
    found = read(data.part or "train", data.limit)
    columns = {TEXT: [text for text, _ in found], PIECE: range(len(found)), PLACE: [1] * len(found)}
    return Source(Dataset.from_dict(columns), [SourceFile(str(file), "line") for _, file in found])


def _column(rows: Dataset, data: Data, where: str) -> Dataset:
    asked = data.text_column
    if asked not in rows.column_names:
        raise _no_column(where, asked, rows.column_names)
    rows = rows.select_columns([asked])
    return rows if asked == TEXT else rows.rename_column(asked, TEXT)


def _no_column(where: str, asked: str, columns: list[str]) -> DataError:
    found = f"{where} has no column {asked!r}; it has: {', '.join(columns)}"
    return DataError(Problem(found, "data.text_column", hint="set data.text_column to one of them"))
