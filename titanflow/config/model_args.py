"""A model's arguments in a plan: one flavor's values with the overrides laid over them, all checked.

At run time :mod:`titan.models.overrides` does the same on torchtitan's own objects. This half needs no torch, and
knows where each value was written.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from titanflow.architectures.families.registry import OWN_FAMILIES
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.common.errors import Problem, did_you_mean
from titanflow.config.files.foreign_names import foreign_key
from titanflow.config.files.schema import Schema, accepts, closest, describe, inline, known_keys
from titanflow.files.yaml_source import Leaf, Tree, first_origin, in_one_line, leaves


def family(name: str) -> dict[str, Any] | None:
    """The snapshot's entry for a model family; None if the family isn't torchtitan's."""
    found = load_snapshot()["models"].get(name)
    return found and {**found, "schema": _schema(name)}


@cache
def _schema(name: str) -> Schema:
    return inline(load_snapshot()["models"][name]["schema"])


def split_overrides(
    model: Tree, model_schema: Schema, args_schema: Schema | None, is_custom: bool = False
) -> tuple[Tree, Tree]:
    """Parts a ``model:`` section into torchtitan's own keys and overrides of the model's arguments.

    As in Primus's files, a key of the family's ``ModelArgs`` that torchtitan's section lacks is an override. A key
    that neither has stays in the section, where the check reports it. The arguments of a family that comes in by
    ``experimental.custom_import`` aren't known here: the stage checks them before it trains.
    """
    if args_schema is None and not is_custom:
        return model, {}
    arguments = args_schema["properties"] if args_schema else None
    section: Tree = {}
    overrides: Tree = {}
    for key, value in model.items():
        is_override = key not in model_schema["properties"] and (arguments is None or key in arguments)
        (overrides if is_override else section)[key] = value
    return section, overrides


def read_params(params: Any, key: str) -> tuple[Tree, list[Problem]]:
    """``params.model_overrides``, flat (``model.n_layers: 4``) or nested, without its ``model.``, and its mistakes."""
    overrides = params.get("model_overrides") if isinstance(params, dict) else None
    if isinstance(overrides, Leaf) and overrides.value is not None:
        expected = "a mapping: model.n_layers: 4"
        return {}, [Problem(f"found {overrides.value!r}", f"{key}.model_overrides", overrides.origin, expected)]
    pairs = list(leaves(overrides)) if isinstance(overrides, dict) else []
    flat, problems = dict(pairs), []
    for name, leaf in pairs:
        # `model.dim` and `model: {dim: …}` are two keys of YAML and one argument.
        problems += twice_set({name: leaf}, {name: flat[name]}, key.removesuffix(".params"), "model.")
    if invalid := [name for name in flat if not name.startswith("model.")]:
        message, origin = f"Invalid override keys detected: {sorted(invalid)}", flat[invalid[0]].origin
        expected = ", ".join(f"model.{name}" for name in sorted(invalid))
        problems.append(Problem(message, f"{key}.model_overrides", origin, expected))
    return {name.removeprefix("model."): leaf for name, leaf in flat.items() if name.startswith("model.")}, problems


def twice_set(one: Tree, other: Tree, key: str, head: str = "") -> list[Problem]:
    """Arguments to which a single file gives two values, in two of the places that may name one."""
    both = [(name, leaf, other[name]) for name, leaf in one.items() if name in other]
    return [
        Problem(f"found {leaf.value!r}, and {again.value!r} ({again.origin})", place, leaf.origin, "one of both")
        for name, leaf, again in both
        if leaf.value != again.value and leaf.file == again.file and (leaf.file or leaf.origin == again.origin)
        for place in [f"{key}.model.{name.removeprefix(head)}"]
    ]


def check_params(params: Any, key: str, schema: Schema, trains: bool) -> list[Problem]:
    """Keys of ``params`` other than ``model_overrides``, each with the line to write in its place."""
    problems = []
    for name, value in params.items() if isinstance(params, dict) else ():
        if name == "model_overrides" and trains:
            continue
        hint, expected = "", "model_overrides" if trains else "nothing: only a model that is trained has params"
        if name.partition(".")[0] == "model" and trains:
            hint = f"write `{in_one_line({'params': {'model_overrides': {name: value}}})}`"
        elif name in schema["properties"]:
            hint = f"write `{in_one_line({'overrides': {name: value}})}`"
        problems.append(Problem("unknown key", f"{key}.{name}", first_origin(value), expected, hint))
    return problems


def check_flavor(name: Leaf | None, flavor: Leaf | None, key: str, origin: str) -> list[Problem]:
    for what, leaf in (("name", name), ("flavor", flavor)):
        if leaf is None or leaf.value is None:
            expected = "a model file (`model: llama3_demo.yaml`), or a section `model: {name: …, flavor: …}`"
            return [Problem(f"model.{what} is required for model override patch", f"{key}.model", origin, expected)]
    assert name is not None
    assert flavor is not None
    models = load_snapshot()["models"]
    if name.value not in models:
        own = "a family of your own comes in by `experimental.custom_import`"
        own = "the snapshot lacks it: python -m titan.models.snapshot" if name.value in OWN_FAMILIES else own
        hint = did_you_mean(str(name.value), models) or own
        message = f"torchtitan {load_snapshot()['torchtitan']} has no model {name.value!r}"
        return [Problem(message, key=f"{key}.model.name", origin=name.origin, expected=", ".join(models), hint=hint)]
    flavors = models[name.value]["flavors"]
    if flavor.value not in flavors:
        message = f"flavor {flavor.value!r} not found in model_args for {name.value!r}"
        hint = did_you_mean(str(flavor.value), flavors)
        return [Problem(message, f"{key}.model.flavor", flavor.origin, ", ".join(flavors), hint)]
    return []


def resolve_model_args(
    found: dict[str, Any], flavor: str, overrides: Tree, key: str
) -> tuple[dict[str, Any], list[Problem]]:
    """The flavor's arguments with the overrides laid over them, and the mistakes of these.

    ``overrides`` may be flat or nested: a dotted key or a mapping reaches a nested dataclass (RoPE scaling, experts).
    """
    args = copy.deepcopy(found["flavors"][flavor])
    known, problems = known_keys(found["schema"]), []
    for dotted, leaf in leaves(overrides):
        field = _field(found["schema"], dotted)
        if field is not None and "properties" in field:
            expected = f"a mapping of {', '.join(field['properties'])}"
            problems.append(Problem(f"found {leaf.value!r}", f"{key}.model.{dotted}", leaf.origin, expected))
        elif field is None:
            message = f"{found['args']!r} has no field {dotted!r}"
            problems.append(Problem(message, f"{key}.model.{dotted}", leaf.origin, hint=_field_hint(dotted, known)))
        elif not accepts(leaf.value, field):
            problems.append(Problem(f"found {leaf.value!r}", f"{key}.model.{dotted}", leaf.origin, describe(field)))
        else:
            set_argument(args, dotted, leaf.value)
    return args, problems


def without_empty_sections(overrides: Tree, args_schema: Schema | None) -> Tree:
    """The flat overrides without sections that are written and left empty: these change nothing."""
    fields = {dotted: _field(args_schema or {}, dotted) or {} for dotted in overrides}
    return {dotted: leaf for dotted, leaf in overrides.items() if leaf.value or "properties" not in fields[dotted]}


def take_unknown(section: Tree, model_schema: Schema, key: str) -> list[Problem]:
    """Takes out of a ``model:`` section the keys that neither torchtitan's section nor the family's arguments have.

    Where the family itself is a mistake, any family's arguments are taken out without a word: that mistake is reported.
    """
    name = section.get("name")
    found = family(str(name.value)) if isinstance(name, Leaf) else None
    unknown = [one for one in section if one not in model_schema["properties"]]
    if found is None:
        for one in filter(families_hint, unknown):
            del section[one]
        return []
    known = [*known_keys(model_schema), *known_keys(found["schema"])]
    return [
        Problem("unknown key", f"{key}.model.{one}", first_origin(section.pop(one)), hint=_field_hint(one, known))
        for one in unknown
    ]


def _field_hint(dotted: str, known: list[str]) -> str:
    here = foreign_key(dotted).removeprefix("model.")
    near, owners = here if here in known else closest(dotted, known), families_hint(dotted)
    if near:
        return f"did you mean `model.{near}`?" + (f" ({owners})" if owners else "")
    return owners or f"fields: {', '.join(known)}"


def families_hint(dotted: str) -> str:
    """A hint that lists the families with this argument; empty where none has it."""
    owners = [name for name in load_snapshot()["models"] if dotted in known_keys(_schema(name))]
    return f"families that have it: {', '.join(owners)}" if owners else ""


def _field(schema: Schema, dotted: str) -> Schema | None:
    for part in dotted.split("."):
        schema = schema.get("properties", {}).get(part)
        if schema is None:
            return None
    return schema


def set_argument(args: dict[str, Any], dotted: str, value: Any) -> None:
    *above, last = dotted.split(".")
    for part in above:
        args = args[part]
    args[last] = value
