"""Reads a run's record of a tokenizer and weights, for when the Hub can't provide them any more."""

from __future__ import annotations

from titanflow.config.keys.repositories import REVISIONS, revision, value
from titanflow.config.module import Module
from titanflow.runs.manifest import Manifest

COMMIT, WEIGHTS = "commit", "weights"
"""Suffixes of a key in a stage's inputs: a tokenizer's commit, and what identifies weights."""


def recorded(module: Module, key: str, manifest: Manifest) -> dict[str, str]:
    """What a stage was made with: the tokenizer's commit, its files' digests by name, and the weights' content.

    Empty if there is no record, or if the key or its revision had another value then.
    """
    record = manifest.stages.get(module.name)
    values = record.inputs.values if record is not None and record.inputs is not None else {}
    named = {key: value(module, key), REVISIONS[key]: revision(module, key)}
    if any(values.get(f"{module.name}.{one}") != now for one, now in named.items()):
        return {}
    start = f"{module.name}.{key}: "
    return {one.removeprefix(start): found for one, found in values.items() if one.startswith(start)}
