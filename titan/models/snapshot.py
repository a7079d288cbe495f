"""Writes the snapshot of torchtitan's configuration that plans are checked against without importing torch.

Run ``python -m titan.models.snapshot`` after a change of torchtitan's version. A test compares the file with what is
installed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from titan.models.key_texts import ARGUMENTS, SECTIONS
from titanflow.architectures.families.registry import OWN_FAMILIES
from titanflow.architectures.torchtitan import FAMILIES, snapshot_path
from titanflow.config.keys.docs import class_docs, field_docs
from titanflow.config.keys.json_schema import json_schema

_ATTRIBUTE = re.compile(r"^ +(\w+) \([^)]*\): (.+)$", re.MULTILINE)
"""A field's line in a class's docstring, as torchtitan writes some."""


def take_snapshot() -> dict[str, Any]:
    """What the installed torchtitan accepts, and this project's own families.

    Returns:
        ``torchtitan``: its version; ``job_config``: the JSON schema of its ``JobConfig``, with the first paragraph
        of what its source says of a field; ``models``: for each family the name and JSON schema of its ``ModelArgs``
        and the values of each flavor.
    """
    from titan.models.registry import train_spec

    train_spec(FAMILIES[0])
    from torchtitan.config import job_config

    models: dict[str, Any] = {}
    for name in (*FAMILIES, *OWN_FAMILIES):
        flavors = train_spec(name).model_args
        args_class = type(next(iter(flavors.values())))
        models[name] = {
            "args": args_class.__name__,
            "schema": _without_private(_described(args_class)),
            "flavors": {flavor: _without_private(dataclasses.asdict(args)) for flavor, args in flavors.items()},
        }
    schema, docs = json_schema(job_config.JobConfig), field_docs(Path(job_config.__file__))
    for name, definition in schema["$defs"].items():
        for key, described in {**docs.get(name, {}), **SECTIONS.get(name, {})}.items():
            definition["properties"][key]["description"] = described
    return {
        "torchtitan": version("torchtitan"),
        "job_config": schema,
        "models": models,
    }


def _described(args_class: type) -> dict[str, Any]:
    """The schema of a model's arguments, each with what its source says of it, or what is said of its name here."""
    schema = json_schema(args_class)
    classes = {args_class.__name__: args_class, **vars(sys.modules[args_class.__module__])}
    for name, definition in {args_class.__name__: schema, **schema.get("$defs", {})}.items():
        cls, properties = classes[name], definition["properties"]
        said = dict(_ATTRIBUTE.findall(cls.__doc__ or "")) | ARGUMENTS | class_docs(cls)
        definition.pop("description", None)
        for key in properties.keys() & said.keys():
            properties[key]["description"] = said[key]
    return schema


def _without_private(value: Any) -> Any:
    """Leaves out fields with a leading underscore, which are torchtitan's own, and titles, which repeat the key."""
    if isinstance(value, dict):
        return {
            key: _without_private(item)
            for key, item in value.items()
            if not key.startswith("_") and not (key == "title" and isinstance(item, str))
        }
    return value


def render(snapshot: dict[str, Any]) -> str:
    return json.dumps(snapshot, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    taken = take_snapshot()
    path = snapshot_path(taken["torchtitan"])
    path.write_text(render(taken), encoding="utf-8")
    print(path)
