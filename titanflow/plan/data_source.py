"""One source of a module's rows, and what stands for its content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from titanflow.common.digests import digest
from titanflow.files.yaml_source import display
from titanflow.run.inputs import SourceFile

SECTIONS = {"data": "train", "validation_data": "validation"}


FILES_NAMED = 1000
"""Files of a source up to which a manifest holds each; of more only their common digest."""


@dataclass(frozen=True)
class DataSource:
    """One source of a module's rows.

    ``section`` is where it stands in the module's config (``data``, or ``data.mixture.sources.<name>``), ``data`` its
    config, ``parts`` what :func:`titanflow.data.fingerprints.data_parts` says of it.
    """

    section: str
    data: dict[str, Any]
    parts: dict[str, Any]

    def content(self) -> dict[str, tuple[Any, dict[str, SourceFile]]]:
        """By the key that names it: what stands for the source's content, and its files where they are local."""
        source = self.parts["source"]
        if self.data.get("source"):
            interpreter = {**source, "files": digest(source["files"])}
            return {f"source: {name}": (value, {}) for name, value in interpreter.items()}
        name = "path" if self.data.get("path") else "dataset"
        if isinstance(source, str):
            return {name: (source, {})}
        return {name: (digest(source), self._files(source))}

    def _files(self, source: list[Any]) -> dict[str, SourceFile]:
        from titanflow.data.fingerprints import data_files

        if len(source) > FILES_NAMED:
            return {}
        digests = [one if isinstance(one, str) else one[1] for one in source]
        return {
            display(path): SourceFile.of(path, sha256)
            for path, sha256 in zip(data_files(self.data), digests, strict=True)
        }
