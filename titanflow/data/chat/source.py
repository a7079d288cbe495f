"""Loads the rows of conversations as their files have them, each with its line.

Rows of files stay JSON text until they are encoded. In Arrow's columns each tool call would get the arguments of all
others, and one odd row would spoil its whole file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.chat_columns import check_declaration, required_columns
from titanflow.config.keys.training import Data
from titanflow.data.chat.layout import Unreadable
from titanflow.data.files.file_rows import Row, Unit, rows_of
from titanflow.data.files.json_rows import JsonFault, parsed_json
from titanflow.data.files.local_files import Ending, local_files
from titanflow.data.files.read_source import read_source
from titanflow.data.files.sources import PIECE, PLACE, Source, SourceFile, check_one_source, load_from_hub
from titanflow.data.files.spans import Span
from titanflow.data.pairs.layout import format_of
from titanflow.data.parts.work import Work
from titanflow.data.stdlib import chats as stdlib_chats
from titanflow.data.stdlib import pairs as stdlib_pairs

if TYPE_CHECKING:
    from datasets import Dataset

ROW = "row"
"""The column that holds a row as JSON text."""
_OF_FILES = {ROW, PIECE, PLACE}


def load_chats(data: Data, work: Work) -> Source:
    """Loads the conversations, or pairs, of a data config.

    Raises:
        DataError: there are no rows, they can't be read, or the first has none of the declared columns.
    """
    key = check_one_source(data)
    check_declaration(data)
    if data.source:
        source = _built_in(data)
    elif data.path:
        source = read_source(local_files(data.path), chat_rows, ROW, data.limit, data.document, work, "chats")
    else:
        source = Source(load_from_hub(data), [SourceFile(str(data.dataset))])
    first = next(iter(read_rows(source.rows)), None)
    if first is None:
        raise DataError(Problem(f"{data.name} has no rows", f"data.{key}"))
    _check_first(first, source, data)
    return source


def read_rows(rows: Dataset) -> Iterator[Any]:
    for start in range(0, len(rows), 1000):
        yield from decoded(rows[start : start + 1000])


def decoded(batch: dict[str, list[Any]]) -> Iterator[Any]:
    """The rows of a batch of columns; a row that isn't JSON is :class:`Unreadable`."""
    if set(batch) != _OF_FILES:
        for values in zip(*batch.values(), strict=True):
            yield _without_nothing(dict(zip(batch, values, strict=True)))
        return
    for row in batch[ROW]:
        try:
            yield parsed_json(row)
        except JsonFault as fault:
            yield Unreadable(str(fault))


def chat_rows(file: Path, span: Span, unread: Counter[str]) -> tuple[Unit, Iterable[tuple[int, str]]]:
    """The rows of a file's span, each as JSON text; see :data:`titanflow.data.files.read_source.Reader`.

    What of them isn't read shows when they are encoded.
    """
    if Ending.of(file).format == "text":
        expected = "conversations: .jsonl, .json, .parquet, .csv or .tsv"
        raise DataError(Problem(f"{file} is plain text", "data.path", expected=expected))
    found = rows_of(file, span=span)
    return found.unit, ((place, _as_json(row)) for place, row in found.rows)


def _as_json(row: Row) -> str:
    # Values that JSON can't hold (a date, an image) are no part of a conversation.
    return row if isinstance(row, str) else json.dumps(_without_nothing(row), default=repr)


def _check_first(row: Any, source: Source, data: Data) -> None:
    """Refuses a wrong declaration once, rather than in each row."""
    if isinstance(row, dict) and len(missing := format_of(data).missing(row)) == len(required_columns(data)):
        raise DataError([replace(one, origin=source.origin(0)) for one in missing])


def _built_in(data: Data) -> Source:
    from datasets import Dataset

    if data.kind == "pairs" and data.source == "stdlib_pairs":
        rows = stdlib_pairs.pairs(data.part or "train", data.limit)
        return Source(Dataset.from_list(rows), [SourceFile("stdlib_pairs")])
    if data.source != "stdlib_chats":
        raise DataError(Problem(f"there are no chats in the source {data.source}", "data.source", "", "stdlib_chats"))
    chats = stdlib_chats.chats(data.part or "train", data.limit)
    return Source(Dataset.from_dict({"messages": chats}), [SourceFile("stdlib_chats")])


def _without_nothing(value: Any) -> Any:
    """Removes the keys that Arrow filled in: each row of a column has all rows' keys, and None for those it lacked."""
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None or key == "content"}
    return [_without_nothing(item) for item in value] if isinstance(value, list) else value
