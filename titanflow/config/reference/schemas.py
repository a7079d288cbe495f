"""The schema of each kind of config file, as the config reader checks it, with the text of every key."""

from __future__ import annotations

from functools import cache

from titanflow.architectures.torchtitan import load_snapshot
from titanflow.config.files.schema import Schema, inline
from titanflow.config.keys.bounds import EXPERIMENT, bounded
from titanflow.config.keys.docs import described_schema
from titanflow.config.keys.experiment import ExperimentSpec, ModuleSpec
from titanflow.config.module import stage_schema
from titanflow.config.reference.kinds import Kind

EXTENDS: Schema = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "default": [],
    "description": "Files of the same kind that this one is laid over, the last one uppermost.",
}
"""The key that every kind of file has: it is taken out before a schema is looked at."""
DATA_FILE: Schema = {
    "type": "string",
    "default": "",
    "description": "A data file whose keys this source has; those written beside it go before.",
}
"""A source's key in a mixture: it is replaced by the file's content before a schema is looked at."""


@cache
def file_schema(kind: Kind) -> Schema:
    """What a file of this kind may hold, beside ``extends``.

    A model file may hold any section of a training: that is where its own are read from. Of an experiment's modules
    each is a :class:`~titanflow.config.keys.experiment.ModuleSpec`, whose ``overrides`` are the stage's own keys.
    """
    match kind:
        case "experiment":
            return _experiment()
        case "data":
            return file_schema("training")["properties"]["data"]
        case "model" | "training":
            return _with_data_files(stage_schema("pretrain", described_schema))
        case _:
            return _with_data_files(stage_schema(kind, described_schema))


def family_schemas() -> dict[str, Schema]:
    """By family: the arguments that a file's ``model`` section takes beside torchtitan's own keys."""
    return {name: inline(found["schema"]) for name, found in load_snapshot()["models"].items()}


def _experiment() -> Schema:
    schema = bounded(described_schema(ExperimentSpec), EXPERIMENT)
    modules = {**schema["properties"]["modules"], "additionalProperties": described_schema(ModuleSpec)}
    return {**schema, "properties": {**schema["properties"], "modules": modules}}


def _with_data_files(schema: Schema) -> Schema:
    """The schema with :data:`DATA_FILE` in each mixture's sources."""
    if "properties" in schema:
        return {**schema, "properties": {name: _with_data_files(one) for name, one in schema["properties"].items()}}
    source = schema.get("additionalProperties")
    if isinstance(source, dict) and "weight" in source.get("properties", {}):
        source = {**source, "properties": {"data": DATA_FILE, **source["properties"]}}
        return {**schema, "additionalProperties": source}
    return schema
