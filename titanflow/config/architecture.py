"""The model that a training module builds: its name, flavor and overridden arguments, and what an sft inherits."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

from titanflow.architectures.base import FOLLOWS_SEQ_LEN, BaseArchitecture, is_mutable
from titanflow.architectures.custom_code import source_files
from titanflow.architectures.families.registry import OWN_FAMILIES
from titanflow.architectures.outside_base import outside_base
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.files.schema import Schema
from titanflow.config.keys.repositories import misplaced_revision
from titanflow.config.model_args import (
    check_flavor,
    family,
    read_params,
    resolve_model_args,
    set_argument,
    split_overrides,
    without_empty_sections,
)
from titanflow.files.yaml_source import Leaf, Tree, first_origin, flatten, leaves, set_leaf

if TYPE_CHECKING:
    from titanflow.config.module import Module
    from titanflow.config.module_files import Entry


def resolve_architecture(
    module: Module, merged: Tree, entry: Entry, schema: Schema, earlier: dict[str, Module], problems: list[Problem]
) -> Tree:
    """Sets the module's model arguments and returns the overrides; ``merged`` keeps torchtitan's own keys."""
    section = _section(merged, "model")
    module.base = base = find_base(module, merged, earlier, problems)
    if base is not None:
        section = _inherited(base, merged, section)
    elif module.stage == "sft":
        return {}
    name, flavor = section.get("name"), section.get("flavor")
    found = family(str(name.value)) if isinstance(name, Leaf) else None
    custom = _section(merged, "experimental").get("custom_import")
    if custom is None and isinstance(name, Leaf) and name.value in OWN_FAMILIES:
        set_leaf(merged, "experimental.custom_import", Leaf(OWN_FAMILIES[name.value], f"the family {name.value}"))
    is_custom = found is None and isinstance(custom, Leaf) and bool(custom.value)
    if isinstance(custom, Leaf) and is_custom and base is None and not source_files(str(custom.value)):
        place = f"{module.name}.experimental.custom_import ({custom.origin})"
        module.warnings.append(f"{place}: no module {custom.value!r} here, nor on the Python path of this machine")
    args_schema = found["schema"] if found else None
    section, overrides = split_overrides(section, schema["properties"]["model"], args_schema, is_custom)
    flat = dict(leaves(overrides))
    params = read_params(entry.spec.get("params", {}), f"{module.name}.params", problems)
    # A command line and flow parameters have the last word, over ``params`` too.
    last = {key: flat[key] for key, _ in leaves(_section(entry.settings, "model")) if key in flat}
    overrides = without_empty_sections({**flat, **params, **last}, args_schema)
    merged["model"] = section
    if base is not None and found is not None and not base.model_args:
        # The base's own module already reports why it has no arguments.
        return {}
    if not is_custom:
        if wrong := check_flavor(name, flavor, module.name, first_origin(entry.spec)):
            problems += wrong
            return overrides
        assert found is not None
        assert flavor is not None
        before = len(problems)
        module.model_args = resolve_model_args(found, flavor.value, overrides, module.name, problems)
        if len(problems) > before:
            return overrides
    module.model_overrides = {key: leaf.value for key, leaf in leaves(overrides)}
    if base is not None:
        _inherit_args(module, base, merged, overrides, problems)
    return overrides


def find_base(
    module: Module, merged: Tree, earlier: dict[str, Module], problems: list[Problem]
) -> BaseArchitecture | None:
    """The base of an sft: an earlier module or an outside model. None for other stages, and after a mistake."""
    if module.stage != "sft":
        return None
    named = _section(merged, "sft").get("base")
    wanted = str(named.value) if isinstance(named, Leaf) else "pretrain"
    for other in earlier.values():
        if wanted in (other.name, other.stage) and other.trains:
            return _planned(other)
    key, origin = f"{module.name}.sft.base", named.origin if isinstance(named, Leaf) else ""
    revision = _section(merged, "sft").get("base_revision")
    try:
        base = outside_base(wanted, str(revision.value) if isinstance(revision, Leaf) and revision.value else None)
    except ConfigError as error:
        problems += [
            dataclasses.replace(problem, key=key, origin=origin, message=_placed(problem)) for problem in error.problems
        ]
        return None
    # A base that is missing because its module could not be read is reported already.
    if base is None and not (problems and "/" not in wanted):
        expected = (
            "a training module before this one, the folder of a finished stage or of a model that transformers loads, "
            "or owner/name on the Hub"
        )
        problems.append(Problem(f"found {wanted!r}", key, origin, expected, misplaced_revision("sft.base", wanted)))
    return base


def _placed(problem: Problem) -> str:
    """The message, headed by its place: the problem's own key and origin become those of ``sft.base``."""
    place = ": ".join(part for part in (problem.origin, problem.key) if part and part != "sft.base")
    return f"{place}: {problem.message}" if place else problem.message


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    # Where a section isn't a mapping, the schema's check reports it.
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _planned(other: Module) -> BaseArchitecture:
    model, training = _section(other.config, "model"), _section(other.config, "training")
    return BaseArchitecture(
        stage=other.name,
        model_name=str(model.get("name") or ""),
        flavor=str(model.get("flavor") or ""),
        model_args=other.model_args or other.model_overrides,
        seq_len=training.get("seq_len") or 0,
        overrides=other.model_overrides,
        config=other.config,
    )


def _inherited(base: BaseArchitecture, merged: Tree, section: Tree) -> Tree:
    """The base's model section with the sft's own keys laid over it; a custom family's import is inherited too."""
    origin = f"inherited from {base.stage}"
    custom = _section(base.config, "experimental").get("custom_import")
    if custom and "custom_import" not in _section(merged, "experimental"):
        set_leaf(merged, "experimental.custom_import", Leaf(custom, origin))
    model = {"name": base.model_name, "flavor": base.flavor}
    if (converters := _section(base.config, "model").get("converters")) is not None:
        model["converters"] = converters
    return {**{key: Leaf(value, origin) for key, value in model.items()}, **section}


def _inherit_args(
    module: Module, base: BaseArchitecture, merged: Tree, overrides: Tree, problems: list[Problem]
) -> None:
    """An sft keeps its base's architecture: arguments that it sets itself must equal the base's, unless mutable."""
    section, base_args = merged["model"], flatten(base.model_args)
    wanted = {"name": (section["name"], base.model_name), "flavor": (section["flavor"], base.flavor)}
    # Of a custom family a plan knows only the overridden arguments; the stage knows all.
    known = {key: leaf for key, leaf in leaves(overrides) if key in base_args}
    wanted |= {key: (leaf, base_args[key]) for key, leaf in known.items() if not is_mutable(key)}
    seq_len = _section(merged, "training").get("seq_len")
    for key, (leaf, value) in wanted.items():
        follows = key == FOLLOWS_SEQ_LEN and isinstance(seq_len, Leaf) and leaf.value == seq_len.value
        if leaf.value != value and not follows:
            message = f"found {leaf.value!r}, and {base.stage} has {value!r}: fine-tuning keeps its base's architecture"
            hint = f"leave it out here, or change {base.stage}.model.{key} and pretrain again"
            problems.append(Problem(message, f"{module.name}.model.{key}", leaf.origin, hint=hint))
    own = {key: leaf.value for key, leaf in leaves(overrides) if key not in known or is_mutable(key)}
    # A base that has grown has other values than the overrides it was built with.
    module.model_overrides = {key: base_args.get(key, value) for key, value in flatten(base.overrides).items()} | own
    if module.model_args:
        module.model_args = copy.deepcopy(base.model_args)
        for key, value in own.items():
            set_argument(module.model_args, key, value)
