"""Parses the user's JSON without losing anything, and tells what of it is no row and no text.

A key that occurs twice is refused, where others keep one value.

RFC 8259, section 4, leaves it to each reader which of the values counts.
"""

from __future__ import annotations

import json
from typing import Any

from titanflow.common.errors import Problem


class JsonFault(ValueError):
    """Why a text isn't accepted as JSON, in words for the user."""


def parsed_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except JsonFault:
        raise
    except json.JSONDecodeError as fault:
        raise JsonFault(f"not JSON: {fault.msg} (column {fault.colno})") from fault
    except (ValueError, RecursionError) as fault:
        raise JsonFault(f"not JSON: {fault}") from fault


def as_mapping(row: str | dict[str, Any]) -> dict[str, Any] | Problem:
    """A row's columns, or the problem with it."""
    try:
        found = parsed_json(row) if isinstance(row, str) else row
    except JsonFault as fault:
        return Problem(str(fault), "data.path", expected="a JSON object")
    if isinstance(found, dict):
        return found
    return Problem(f"the row isn't a mapping but {type(found).__name__}", "data.path", expected="a JSON object")


def text_fault(text: Any) -> str:
    """Why a value isn't valid text; empty if it is."""
    if text is None:
        return "the row has no text"
    if not isinstance(text, str):
        return f"found {text!r:.60}, which is {type(text).__name__}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half a character ({text[error.start]!r}) at place {error.start}"
    return ""


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise JsonFault(f"the key {repeated!r} stands twice")
    return found
