"""Finds the column of a table that holds documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

NAMES = ("text", "content", "body", "document", "article", "story", "passage", "raw_content", "page_content")
"""Names that data sets give to a document's column; an earlier one goes before a later one."""
LIKELY = ("markdown", "code", "abstract", "description")
"""Names of a document's column, or of one that says something about it: then the document is longer."""
CLEARLY = 2.0
"""A column of another name is taken if its texts are longer than all others by this factor."""
PROSE = 40.0
"""From this mean length on, in characters, a column may be documents."""


def find_text_column(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The column that is meant: by its name, or else because its texts are by far the longest; None if none is."""
    texts = text_lengths(rows)
    by_name = {name.strip().lower(): name for name in reversed(texts)}
    if named := next((by_name[name] for name in NAMES if name in by_name), None):
        return named
    longest = sorted(texts, key=lambda name: texts[name], reverse=True)
    likely = next((by_name[name] for name in LIKELY if name in by_name), None)
    if likely and texts[longest[0]] < CLEARLY * texts[likely]:
        return likely
    if not longest or texts[longest[0]] < PROSE:
        return None
    is_clear = len(longest) == 1 or texts[longest[0]] >= CLEARLY * texts[longest[1]]
    return longest[0] if is_clear else None


def text_lengths(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The columns of texts, each with their mean length in characters."""
    lengths = {name: _mean_length(rows, name) for name in column_names(rows)}
    return {name: length for name, length in lengths.items() if length}


def column_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of some rows, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def listed(names: Iterable[str]) -> str:
    """Columns in words. One may have no name: pandas' `to_csv` writes its index so."""
    return ", ".join(name or "''" for name in names)


def _mean_length(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The mean length of a column's texts; 0 if most of its values are none."""
    values = [value for row in rows if (value := row.get(name)) is not None]
    texts = [value for value in values if isinstance(value, str)]
    return mean(map(len, texts)) if texts and 2 * len(texts) >= len(values) else 0.0
