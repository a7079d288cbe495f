"""Finds tables that can be read, and hold something else than their rows say: a header that is none, rows in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from titanflow.common.errors import DataError, Problem
from titanflow.data.inspect.text_columns import column_names

LONGEST_NAME = 80
"""A longer name of a column, or one of several lines, is a text."""


def check_rows(file: Path, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Refuses a file whose rows aren't what they seem.

    Raises:
        DataError: says what stands there, and the way out.
    """
    _check_header(file, column_names(rows), key)
    _check_single_row(file, rows, key)


def _check_header(file: Path, names: Sequence[str], key: str) -> None:
    """A CSV without a header gives the first document's text to a column as its name, and loses this document."""
    if text := next((name for name in names if len(name) > LONGEST_NAME or "\n" in name.strip()), None):
        message = f"{file} seems to have no header; a column's name is {text[:40]!r}…"
        hint = "write the columns' names above the first row"
        raise DataError(Problem(message, key, expected="a first row of names", hint=hint))


def _check_single_row(file: Path, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """``{"data": [{…}, {…}]}`` is one row with a list, where a list of rows was meant."""
    if len(rows) != 1 or file.suffix != ".json":
        return
    lists = [name for name, value in rows[0].items() if _are_rows(value)]
    if len(lists) == 1:
        message = f"{file} is one row; {len(rows[0][lists[0]]):,} more stand in its column {lists[0]!r}"
        hint = f"take them out, as by: jq .{lists[0]} {file.name} > rows.json"
        raise DataError(Problem(message, key, expected="a list of rows", hint=hint))


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(one, dict) and len(one) > 0 for one in value)
