"""JSON schemas (draft 2020-12) by which an editor completes and checks a config while it is written.

They accept whatever the config reader accepts, and refuse a key that no schema has. Only the reader sees values that
contradict each other, and only it knows the arguments of a family that comes in by ``experimental.custom_import``.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

from titanflow.config.files.schema import BOUNDS, Schema, known_keys
from titanflow.config.keys.docs import described_schema
from titanflow.config.keys.experiment import ModuleSpec
from titanflow.config.reference.kinds import Kind
from titanflow.config.reference.schemas import EXTENDS, family_schemas, file_schema
from titanflow.runs.contract import KIND_OF, KINDS, TRAINED, StageKind

DRAFT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE: Schema = {"type": "string", "pattern": r"\$\{"}
"""A value of the environment in place of any other: ``${STEPS:300}``."""
WRITTEN_AS_TEXT = ["string", "number", "boolean"]
"""What stands for a text: ``012`` or ``no`` without quotes is the text that was written, where only that is taken."""
FILE = "experiment.schema.json"
"""Where an experiment's schema is looked for, beside the experiment."""
COPIED = ("type", "enum", "const", *BOUNDS)


def editor_schema(kind: Kind) -> Schema:
    """The schema of a kind of file."""
    made = _experiment() if kind == "experiment" else _file(kind)
    title = f"titanflow: {kind}"
    return {"$schema": DRAFT, "title": title, **made}


def editor_comment(folder: Path) -> str:
    """The line at the top of an experiment by which an editor finds :data:`FILE`; empty where the folder has none."""
    return f"# yaml-language-server: $schema={FILE}\n" if (folder / FILE).is_file() else ""


def _file(kind: Kind) -> Schema:
    if kind in ("training", "model"):
        return _with_extends(_training())
    return _with_extends(_section(file_schema(kind)))


def _experiment() -> Schema:
    """With each stage's keys below ``overrides``, and a section wherever a module may name a file."""
    schema = file_schema("experiment")
    own = {name: field for name, field in schema["properties"].items() if name != "modules"}
    made = _with_extends(_section({**schema, "properties": own}))
    kinds = {kind: {"$ref": f"#/$defs/module_{kind}"} for kind in KINDS if kind != "prepare"}
    modules = _object({name: kinds[kind] for name, kind in KIND_OF.items() if kind in kinds})
    # Another name says nothing: the key `stage` has to.
    of_kind = [{"if": {"properties": {"stage": {"const": kind}}}, "then": ref} for kind, ref in kinds.items()]
    modules["additionalProperties"] = {"type": "object", "required": ["stage"], "allOf": of_kind}
    described = schema["properties"]["modules"]["description"]
    # A list of modules is Primus's way to write them.
    listed = {"type": "array", "items": {"type": "object", "required": ["name"]}}
    made["properties"]["modules"] = {"description": described, "anyOf": [modules, listed]}
    made["$defs"] = {"training": _training()}
    made["$defs"] |= {kind: _section(file_schema(kind)) for kind in ("evaluate", "publish")}
    made["$defs"] |= {f"module_{kind}": _module(kind, {"$ref": f"#/$defs/{_kind(kind)}"}) for kind in kinds}
    return made


def _kind(kind: StageKind) -> Kind:
    return kind if kind == "evaluate" or kind == "publish" else "training"


def _module(kind: StageKind, overrides: Schema) -> Schema:
    made = _section(described_schema(ModuleSpec))["properties"]
    made["overrides"] = {"description": made["overrides"]["description"], "anyOf": [overrides, {"type": "null"}]}
    made["stage"] = {"description": made["stage"]["description"], "const": kind}
    for name in ("model", "data", "validation_data"):
        file = {"type": [*WRITTEN_AS_TEXT, "null"]}
        section = f"{overrides['$ref']}/properties/{name}"
        has_section = kind != "publish" and (kind != "evaluate" or name == "data")
        options = [file, {"$ref": section}] if has_section else [file]
        made[name] = {"description": made[name]["description"], "anyOf": options}
    if kind in TRAINED:
        made["params"] = {
            **_object({"model_overrides": _model_overrides()}),
            "description": made["params"]["description"],
        }
    return _object(made)


def _training() -> Schema:
    """A training's sections; ``model`` takes the arguments of every known family."""
    made = _section(file_schema("training"))
    made["properties"]["model"]["properties"] |= _arguments()
    return made


def _arguments() -> dict[str, Schema]:
    """By name: an argument as any family has it. One within another may be written with a dot, too."""
    merged = reduce(_either, family_schemas().values())
    sections = _section(merged)["properties"]
    return sections | {key: {} for key in known_keys(merged) if "." in key}


def _either(one: Schema, other: Schema) -> Schema:
    """The properties of both; a key that differs is one or the other."""
    properties = dict(one["properties"])
    for name, field in other["properties"].items():
        known = properties.get(name, field)
        if "properties" in known and "properties" in field:
            properties[name] = _either(known, field)
        elif _values(known) != _values(field):
            properties[name] = {"anyOf": [known, field], "description": known.get("description", "")}
    return {**one, "properties": {**other["properties"], **properties}}


def _values(field: Schema) -> Schema:
    return {name: value for name, value in field.items() if name not in ("default", "description", "title")}


def _model_overrides() -> Schema:
    arguments = _arguments()
    return _object({"model": _object(arguments), **{f"model.{name}": field for name, field in arguments.items()}})


def _with_extends(made: Schema) -> Schema:
    return {**made, "properties": {"extends": _field(EXTENDS), **made["properties"]}}


def _object(properties: dict[str, Any]) -> Schema:
    """A section, which may also be left empty."""
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _section(schema: Schema) -> Schema:
    return _object({name: _field(field) for name, field in schema["properties"].items()})


def _field(field: Schema) -> Schema:
    """A key's schema, with its text and default for the editor to show."""
    shown = {name: field[name] for name in ("description", "default") if field.get(name) is not None}
    if "properties" in field:
        return {**_section(field), **shown}
    return {**shown, "anyOf": [_value(field), REFERENCE]}


def _value(field: Schema, in_list: bool = False) -> Schema:
    """What a value may be; in a list a number doesn't stand for a text."""
    if "anyOf" in field:
        return {"anyOf": [_value(option, in_list) for option in field["anyOf"]]}
    if "properties" in field:
        return _section(field)
    if field.get("type") == "string" and "enum" not in field and not in_list:
        return {"type": WRITTEN_AS_TEXT}
    made = {name: field[name] for name in COPIED if name in field}
    if isinstance(items := field.get("items"), dict) and items:
        made["items"] = {"anyOf": [_value(items, in_list=True), REFERENCE]}
    if isinstance(named := field.get("additionalProperties"), dict):
        made["additionalProperties"] = (
            _section(named) if "properties" in named else {"anyOf": [_value(named), REFERENCE]}
        )
    return made
