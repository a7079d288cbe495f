"""Which model a training module builds: name, flavor, overrides of its arguments, and what an sft inherits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titanflow.config.model_args import check_flavor, family, read_params, resolve_model_args, split_overrides
from titanflow.config.schema import Schema
from titanflow.config.yaml_source import Leaf, Tree, first_origin, flatten, leaves
from titanflow.errors import Problem

if TYPE_CHECKING:
    from titanflow.config.module import Entry, Module


def resolve_architecture(
    module: Module, merged: Tree, entry: Entry, schema: Schema, earlier: dict[str, Module], problems: list[Problem]
) -> Tree:
    """Sets the module's model arguments and returns the overrides; ``merged`` keeps torchtitan's own keys."""
    section = merged.get("model") if isinstance(merged.get("model"), dict) else {}
    assert isinstance(section, dict)
    base = _base(module, merged, earlier)
    if base is not None:
        section = _inherited(base, section)
    name, flavor = section.get("name"), section.get("flavor")
    found = family(str(name.value)) if isinstance(name, Leaf) else None
    section, overrides = split_overrides(section, schema["properties"]["model"], found and found["schema"])
    params = read_params(entry.spec.get("params", {}), f"{module.name}.params", problems)
    overrides = {**dict(leaves(overrides)), **params, **_set_last(overrides, entry.settings)}
    merged["model"] = section
    custom = merged.get("experimental", {}).get("custom_import")
    if found is None and isinstance(custom, Leaf) and custom.value:
        module.model_overrides = {key: leaf.value for key, leaf in leaves(overrides)}
        return overrides
    if module.stage == "sft" and base is None and name is None:
        return overrides
    wrong = check_flavor(name, flavor, module.name, first_origin(entry.spec))
    problems += wrong
    if wrong:
        return overrides
    assert isinstance(name, Leaf)
    assert isinstance(flavor, Leaf)
    before = len(problems)
    module.model_args = resolve_model_args(name.value, flavor.value, overrides, module.name, problems)
    module.model_overrides = {key: leaf.value for key, leaf in leaves(overrides)}
    if base is not None and len(problems) == before:
        _inherit_args(module, base, name, flavor, overrides, problems)
    return overrides


def _set_last(overrides: Tree, settings: Tree) -> Tree:
    """Of the overrides those that a command line or a flow parameter set: they go over ``params`` too."""
    model = settings.get("model")
    last = dict(leaves(model)) if isinstance(model, dict) else {}
    return {key: leaf for key, leaf in leaves(overrides) if key in last}


def _base(module: Module, merged: Tree, earlier: dict[str, Module]) -> Module | None:
    if module.stage != "sft":
        return None
    named = merged.get("sft", {}).get("base")
    wanted = named.value if isinstance(named, Leaf) else "pretrain"
    return next((other for other in earlier.values() if wanted in (other.name, other.stage) and other.trains), None)


def _inherited(base: Module, section: Tree) -> Tree:
    """The base's model under what the sft says of its own."""
    origin = f"inherited from {base.name}"
    keys = ("name", "flavor", "converters")
    return {**{key: Leaf(base.config["model"][key], origin) for key in keys}, **section}


def _inherit_args(
    module: Module, base: Module, name: Leaf, flavor: Leaf, overrides: Tree, problems: list[Problem]
) -> None:
    """An sft has its base's architecture: whatever it says of its own must say the same."""
    wanted = {
        "name": (name, base.config["model"]["name"]),
        "flavor": (flavor, base.config["model"]["flavor"]),
    }
    base_args = flatten(base.model_args)
    wanted |= {key: (leaf, base_args.get(key)) for key, leaf in leaves(overrides)}
    for key, (leaf, value) in wanted.items():
        if leaf.value != value:
            problems.append(
                Problem(
                    f"found {leaf.value!r}, and {base.name} has {value!r}: fine-tuning keeps its base's architecture",
                    key=f"{module.name}.model.{key}",
                    origin=leaf.origin,
                    hint=f"leave it out here, or change {base.name}.model.{key} and pretrain again",
                )
            )
    module.model_args, module.model_overrides = base.model_args, base.model_overrides
