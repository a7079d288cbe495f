"""Parses the user's JSON without losing anything: a key that occurs twice is refused, where others keep one value.

RFC 8259, section 4, leaves it to each reader which of the values counts.
"""

from __future__ import annotations

import json
from typing import Any


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


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise JsonFault(f"the key {repeated!r} stands twice")
    return found
