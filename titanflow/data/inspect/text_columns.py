"""Finds the column of a table that holds documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

NAMES = (
    *("text", "content", "body", "document", "article", "story", "passage", "raw_content", "page_content"),
    *("markdown", "code", "abstract", "description"),
)
"""Names that data sets give to a document's column; an earlier one goes before a later one."""
CLEARLY = 2.0
"""A column of another name is taken if its texts are longer than all others by this factor."""
PROSE = 20.0
"""From this mean length on, in characters, a column may be documents."""


def find_text_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The column that is meant: by its name, or else because its texts are by far the longest; None if none is."""
    lengths = {name: _mean_length(rows, name) for name in column_names(rows)}
    texts = {name: length for name, length in lengths.items() if length}
    by_name = {name.strip().lower(): name for name in reversed(texts)}
    if named := next((by_name[name] for name in NAMES if name in by_name), None):
        return named
    longest = sorted(texts, key=lambda name: texts[name], reverse=True)
    if not longest or texts[longest[0]] < PROSE:
        return None
    is_clear = len(longest) == 1 or texts[longest[0]] >= CLEARLY * texts[longest[1]]
    return longest[0] if is_clear else None


def column_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of some rows, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _mean_length(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The mean length of a column's texts; 0 if one of its values is no text, or none is there."""
    values = [value for row in rows if (value := row.get(name)) is not None]
    return mean(map(len, values)) if values and all(isinstance(value, str) for value in values) else 0.0
