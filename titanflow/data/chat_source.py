"""Where conversations come from: each row as its file has it, and the line where it stands.

JSON is kept as text until a row is encoded: read into Arrow's columns, each tool call would get the arguments of
all others, and one odd row would spoil its whole file.
"""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from titanflow.config.additions import Data
from titanflow.data import stdlib_chats
from titanflow.data.chat_format import REQUIRED, ChatFormat, Unreadable, check_declaration
from titanflow.data.local_files import LOADERS, local_files
from titanflow.data.sources import check_one_source, load_files, load_from_hub
from titanflow.errors import DataError, Problem

if TYPE_CHECKING:
    from datasets import Dataset

LINE = "line"
"""The column that holds a row as JSON text."""
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Part:
    """So many rows of one file or dataset.

    ``unit`` is what they are counted in: lines, or rows from 1. ``lines`` are the lines on which they begin, where
    that isn't one a row.
    """

    name: str
    rows: int
    unit: Literal["line", "row"] = "line"
    lines: list[int] | None = None

    def origin(self, row: int) -> str:
        """Where the part's row stands (from 0): ``file:line``, or ``file:row N`` where a format has no lines."""
        if self.unit == "row":
            return f"{self.name}:row {row + 1}"
        return f"{self.name}:{self.lines[row] if self.lines else row + 1}"


@dataclass(frozen=True)
class Parts:
    """All parts of a source, in order."""

    parts: list[Part]

    def origin(self, row: int) -> str:
        """Where a row of the source stands."""
        starts = [0, *itertools.accumulate(part.rows for part in self.parts)]
        index = bisect.bisect_right(starts, row) - 1
        return self.parts[index].origin(row - starts[index])

    def as_json(self) -> list[dict[str, Any]]:
        """The parts as ``dataset.json`` keeps them."""
        return [asdict(part) for part in self.parts]


@dataclass(frozen=True)
class ChatSource:
    """A source's rows, either one column of JSON text (:data:`LINE`) or columns, and where each stands."""

    rows: Dataset
    parts: Parts


def load_chats(data: Data, cache: Path) -> ChatSource:
    """Reads what a data config of conversations names.

    Args:
        data: the config; exactly one of ``source``, ``path`` and ``dataset`` is set.
        cache: a folder for what ``datasets`` writes while it reads local files; the caller removes it.

    Raises:
        DataError: nothing is there, it can't be read, or its first row has none of the declared columns.
    """
    key = check_one_source(data)
    check_declaration(data)
    if data.source:
        source = _built_in(data)
    elif data.path:
        source = _from_files(local_files(data.path), cache)
    else:
        rows = load_from_hub(data)
        source = ChatSource(rows, Parts([Part(str(data.dataset), len(rows), "row")]))
    first = next(iter(read_rows(source.rows)), None)
    if first is None:
        raise DataError(Problem(f"{data.name} has no rows", f"data.{key}"))
    _check_first(first[0], first[1], source, data)
    if data.limit is not None and data.limit < len(source.rows):
        taken = [number for number, _ in itertools.islice(read_rows(source.rows), data.limit)]
        source = ChatSource(source.rows.select(range(max(taken, default=-1) + 1)), source.parts)
    return source


def read_rows(rows: Dataset) -> Iterator[tuple[int, Any]]:
    """Each row's number and what it holds; blank lines are no rows."""
    for start in range(0, len(rows), 1000):
        yield from ((start + index, row) for index, row in decoded(rows[start : start + 1000]))


def decoded(batch: dict[str, list[Any]]) -> Iterator[tuple[int, Any]]:
    """The rows of a batch of columns, each with its place in the batch; see :func:`read_rows`."""
    if set(batch) != {LINE}:
        for index, values in enumerate(zip(*batch.values(), strict=True)):
            yield index, _without_nothing(dict(zip(batch, values, strict=True)))
        return
    for index, line in enumerate(batch[LINE]):
        if line.strip():
            try:
                yield index, json.loads(line.removeprefix(_BYTE_ORDER_MARK))
            except (ValueError, RecursionError) as error:
                yield index, Unreadable(f"not JSON: {error}")


def _check_first(number: int, row: Any, source: ChatSource, data: Data) -> None:
    """A wrong declaration is one mistake, not one a row."""
    columns = ChatFormat.of(data)
    if isinstance(row, dict) and len(missing := columns.missing(row)) == len(REQUIRED[data.chat_format]):
        raise DataError([replace(one, origin=source.parts.origin(number)) for one in missing])


def _built_in(data: Data) -> ChatSource:
    from datasets import Dataset

    if data.source != "stdlib_chats":
        raise DataError(Problem(f"there are no chats in the source {data.source}", "data.source", "", "stdlib_chats"))
    chats = stdlib_chats.chats(data.split_part, data.limit)
    return ChatSource(Dataset.from_dict({"messages": chats}), Parts([Part("stdlib_chats", len(chats))]))


def _from_files(files: list[Path], cache: Path) -> ChatSource:
    from datasets import Dataset, concatenate_datasets

    if plain := [file for file in files if LOADERS[file.suffix] == "text"]:
        expected = "conversations: .jsonl, .json, .parquet or .csv"
        raise DataError(Problem(f"{plain[0]} is plain text", "data.path", expected=expected))
    loaded: list[Dataset] = []
    parts: list[Part] = []
    for file in files:
        lines: list[int] | None = None
        if file.suffix == ".jsonl":
            rows = load_files([file], cache, "text").rename_column("text", LINE)
        elif file.suffix == ".json":
            texts, lines = read_array(file)
            rows = Dataset.from_dict({LINE: texts})
        else:
            rows = load_files([file], cache)
        has_lines = file.suffix == ".jsonl" or (lines is not None and len(set(lines)) == len(lines))
        loaded.append(rows)
        parts.append(Part(str(file), len(rows), "line" if has_lines else "row", lines if has_lines else None))
    if len({LINE in rows.column_names for rows in loaded}) > 1:
        expected = "one of .json and .jsonl, or one of .parquet and .csv"
        raise DataError(Problem("files of different kinds can't be read together", "data.path", expected=expected))
    try:
        return ChatSource(loaded[0] if len(loaded) == 1 else concatenate_datasets(loaded), Parts(parts))
    except ValueError as error:
        found = f"{', '.join(part.name for part in parts)} have columns of different types: {error}"
        raise DataError(
            Problem(found, "data.path", hint="write them as .jsonl, which keeps each row as it is")
        ) from error


def read_array(file: Path) -> tuple[list[str], list[int]]:
    """The rows of a file that is one JSON array, each as text, and the lines on which they begin.

    Raises:
        DataError: it isn't UTF-8, not JSON, or no array.
    """
    try:
        return _elements(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as fault:
        problem = Problem(f"not UTF-8: {fault.reason} at byte {fault.start}", "data.path", f"{file}:1")
        raise DataError(problem) from fault
    except (ValueError, RecursionError) as fault:
        line = getattr(fault, "lineno", 1)
        hint = "a file with a row a line is called .jsonl"
        expected = "a list of rows"
        raise DataError(Problem(f"not JSON: {fault}", "data.path", f"{file}:{line}", expected, hint)) from fault


def _elements(text: str) -> tuple[list[str], list[int]]:
    decoder = json.JSONDecoder()
    rows: list[str] = []
    lines: list[int] = []
    line, counted = 1, 0
    position = _after(text, 0, "[")
    is_open = text[position : position + 1] != "]"
    while is_open:
        _, end = decoder.raw_decode(text, position)
        line += text.count("\n", counted, position)
        counted = position
        rows.append(text[position:end])
        lines.append(line)
        position = _after_space(text, end)
        is_open = text[position : position + 1] != "]"
        if is_open:
            position = _after(text, position, ",")
    rest = _after(text, position, "]")
    if rest < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)
    return rows, lines


def _after(text: str, position: int, character: str) -> int:
    """Where a text goes on after a character that must stand at a position, or after space there."""
    position = _after_space(text, position)
    if text[position : position + 1] != character:
        raise json.JSONDecodeError(f"Expecting {character!r}", text, position)
    return _after_space(text, position + 1)


def _after_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position


def _without_nothing(value: Any) -> Any:
    """Without the keys that Arrow filled in: a column's rows all get every key, absent ones as None."""
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None or key == "content"}
    return [_without_nothing(item) for item in value] if isinstance(value, list) else value
