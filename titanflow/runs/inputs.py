"""What a stage was made from, leaf by leaf: its fingerprint is their digest, and two of them show what changed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from titanflow.common.digests import digest


class SourceFile(BaseModel):
    """One file of a data source: its SHA-256, bytes, and last modification (ISO 8601, UTC)."""

    sha256: str
    bytes: int
    modified: str

    @classmethod
    def of(cls, path: Path, sha256: str) -> SourceFile:
        state = path.stat()
        modified = datetime.fromtimestamp(state.st_mtime, UTC).isoformat(timespec="seconds")
        return cls(sha256=sha256, bytes=state.st_size, modified=modified)

    def __str__(self) -> str:
        return f"sha256 {self.sha256[:8]}, {self.bytes:,} bytes, {self.modified}"


PARENT = "parent."
"""What stands before the name of an earlier stage, whose fingerprint is an input."""


class StageInputs(BaseModel):
    """Everything that a stage's result depends on.

    ``values`` are by dotted key, as JSON has them; ``origins`` says where each was written. Where a value is the digest
    of files, ``files`` has these by name.
    """

    # A config may hold .inf; as null it could not be compared.
    model_config = ConfigDict(ser_json_inf_nan="constants")

    values: dict[str, Any] = Field(default_factory=dict)
    origins: dict[str, str] = Field(default_factory=dict)
    files: dict[str, dict[str, SourceFile]] = Field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return digest(self.values)

    @property
    def parents(self) -> list[str]:
        """The stages whose results the stage reads."""
        return [key.removeprefix(PARENT) for key in self.values if key.startswith(PARENT)]

    def add(self, key: str, value: Any, origin: str = "", files: dict[str, SourceFile] | None = None) -> None:
        """Adds one leaf, in the form in which a manifest returns it."""
        self.values[key] = json.loads(json.dumps(value, default=str))
        if origin:
            self.origins[key] = origin
        if files:
            self.files[key] = files
