"""Where values come from: the origin of a dotted key, or of what stands below it."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT = "default"


def is_written(origins: Mapping[str, str], key: str) -> bool:
    """Whether someone wrote the key, so that its value isn't a default."""
    origin = origins.get(key, DEFAULT)
    return origin != DEFAULT and not origin.startswith("torchtitan ")


def origin_of(origins: Mapping[str, str], key: str) -> str:
    """The origin of a key's value; a section's is that of its first written key. Empty where nobody knows it."""
    below = (name for name in origins if name.startswith(f"{key}.") and is_written(origins, name))
    return origins.get(key) or origins.get(next(below, ""), "")
