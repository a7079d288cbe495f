"""Every key of a schema, flat: its dotted name, the values that it takes, its default and its text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from titanflow.config.files.schema import Schema, defaults, describe

NAME = "NAME"
"""What stands in a key for a name that the user chooses: ``data.mixture.sources.NAME.weight``."""


@dataclass(frozen=True)
class Key:
    """One key that a config may set."""

    name: str
    values: str
    default: Any
    text: str

    @property
    def last(self) -> str:
        """Its name within its section."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Section:
    """The keys that stand directly below a section; the file's own have an empty ``name``."""

    name: str
    text: str
    keys: list[Key]


def sections(schema: Schema, name: str = "") -> Iterator[Section]:
    """The section and all below it, those without a key of their own left out."""
    fields = {f"{name}.{key}" if name else key: field for key, field in schema["properties"].items()}
    below = {key: (field, inner) for key, field in fields.items() if (inner := _inner(key, field)) is not None}
    own = [
        Key(key, describe(field), defaults(field), field.get("description", ""))
        for key, field in fields.items()
        if key not in below
    ]
    if own:
        yield Section(name, schema.get("description", ""), own)
    for field, (named, inside) in below.values():
        yield from sections({"description": field.get("description", ""), **inside}, named)


def _inner(key: str, field: Schema) -> tuple[str, Schema] | None:
    """The name and schema of the section that a field is, or whose names it takes."""
    if "properties" in field:
        return key, field
    named = field.get("additionalProperties")
    return (f"{key}.{NAME}", named) if isinstance(named, dict) and "properties" in named else None
