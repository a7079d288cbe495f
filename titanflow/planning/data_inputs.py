"""Adds what a stage's data is made of to its inputs: sources and their content, tokenizer, template, seq_len."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from titanflow.config.checks.module import has_data
from titanflow.config.module import Module
from titanflow.files.yaml_source import flatten
from titanflow.planning.data_source import SECTIONS, DataSource
from titanflow.runs.inputs import SourceFile, StageInputs

if TYPE_CHECKING:
    from titanflow.planning.preparation import Preparation


STATED = ("license", "link")
"""Keys of a source that say something of its rows, and change none."""


def add_data(inputs: StageInputs, module: Module, preparation: Preparation) -> None:
    """Adds a module's tokenizer, its rows, and the weights that it begins with."""
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
            # A stream is read only while it is trained on, so its config counts, not its content.
            read = {key: value for key, value in module.config[section].items() if key not in STATED}
            for key, value in flatten({section: read, "chat": module.config["chat"]}).items():
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
    """Where a key was written; for a file (``data.path: text.txt``) the part before the colon."""
    return module.origins.get(key.partition(": ")[0], "")
