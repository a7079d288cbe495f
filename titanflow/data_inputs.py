"""What a stage's data is made of, as leaves of its inputs: sources and their content, tokenizer, template, seq_len."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from titanflow.config.checks import has_data
from titanflow.config.module import Module
from titanflow.config.yaml_source import display, flatten
from titanflow.fingerprint import digest
from titanflow.stage_inputs import SourceFile, StageInputs

if TYPE_CHECKING:
    from titanflow.preparation import Preparation

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


def add_data(inputs: StageInputs, module: Module, preparation: Preparation) -> None:
    """Adds what a module's tokenizer and rows are made of, and the weights that it begins with."""
    initial = preparation.initial.get(module.name)
    given = preparation.tokenizers.parts.get(module.name, {}) | (initial.parts if initial is not None else {})
    for key, value in given.items():
        inputs.add(f"{module.name}.{key}", value, _origin(module, key))
    for section in SECTIONS:
        for source in preparation.sources.get(f"{module.name}.{section}", []):
            _add_source(inputs, module, source)
        for key, value in flatten(preparation.mixtures.get(f"{module.name}.{section}", {})).items():
            dotted = f"{section}.mixture.{key}"
            inputs.add(f"{module.name}.{dotted}", value, _origin(module, dotted))
        if module.trains and has_data(module, section) and module.config[section]["streaming"]:
            # A stream is read while it is trained on: what is written counts.
            for key, value in flatten({section: module.config[section], "chat": module.config["chat"]}).items():
                inputs.add(f"{module.name}.{key}", value, _origin(module, key))


def _add_source(inputs: StageInputs, module: Module, source: DataSource) -> None:
    parts, around = source.parts, source.section.partition(".")[0]
    leaves: dict[str, tuple[Any, dict[str, SourceFile]]] = {
        key: (value, {}) for key, value in flatten(parts["config"]).items()
    }
    leaves |= source.content()
    for key, (value, files) in leaves.items():
        origin = _origin(module, f"{source.section}.{key}") or _origin(module, f"{around}.{key}")
        inputs.add(f"{module.name}.{source.section}.{key}", value, origin, files)
    inputs.add("version.data", parts["version"], "installed")
    if "chat" in parts:
        rows = "validation" if around == "validation_data" else "training"
        rendered = flatten({"chat": parts["chat"]})
        for key, value in {**rendered, f"{rows}.seq_len": parts["seq_len"]}.items():
            inputs.add(f"{module.name}.{key}", value, _origin(module, key))


def _origin(module: Module, key: str) -> str:
    """Where a key stands; of a file (``data.path: text.txt``) where the key before the colon does."""
    return module.origins.get(key.partition(": ")[0], "")
