"""The JSON schema of a dataclass with the defaults of its factories, which pydantic leaves out."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, NoDefault


def json_schema(cls: type) -> dict[str, Any]:
    """The schema of a dataclass: ``components: list[str] = field(default_factory=…)`` has its default, too."""
    return TypeAdapter(cls).json_schema(schema_generator=_WithFactories)


class _WithFactories(GenerateJsonSchema):
    def get_default_value(self, schema: Any) -> Any:
        factory = schema.get("default_factory")
        value = factory() if factory is not None else super().get_default_value(schema)
        # A section has the defaults of its fields.
        return NoDefault if is_dataclass(value) else value
