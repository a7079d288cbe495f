"""The model that a training module builds: its name, flavor and overridden arguments, and what an sft inherits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from titanflow.architectures.base import FOLLOWS_SEQ_LEN, BaseArchitecture, free_rope, may_differ
from titanflow.architectures.custom_code import source_files
from titanflow.architectures.families.registry import OWN_FAMILIES
from titanflow.architectures.outside_base import outside_base
from titanflow.common.errors import ConfigError, Problem, did_you_mean
from titanflow.config.files.schema import Schema
from titanflow.config.keys.repositories import misplaced_revision
from titanflow.config.means.recipe import misshapen, named_stages
from titanflow.config.model_args import (
    check_flavor,
    family,
    read_params,
    resolve_model_args,
    set_argument,
    split_overrides,
    twice_set,
    without_empty_sections,
)
from titanflow.config.stages import BASE, named_module
from titanflow.files.yaml_source import Leaf, Tree, first_origin, flatten, leaves, plain, set_leaf
from titanflow.runs.contract import StageKind

if TYPE_CHECKING:
    from titanflow.config.module import Module

SECTIONS = ("base", "base_revision", "model", "experimental", "training")
"""The keys and sections of a training module that say which model is built; of ``training`` the length of its rows."""


@dataclass
class ModelPart:
    """What a module's entry says of its model: :data:`SECTIONS` of its config, and what it writes beside them.

    ``settings`` are those of the command line: they have the last word, over ``params`` too. ``origin`` is where the
    entry stands. ``is_broken``: there are mistakes before, which may be why an sft's base isn't known.
    """

    module: str
    kind: StageKind
    sections: Tree
    params: Any
    settings: Any
    origin: str
    is_broken: bool


@dataclass
class Architecture:
    """The model that a training module builds: values of :class:`titanflow.config.module.Module`, and the mistakes.

    ``overrides`` are ``model_overrides`` with their origins.
    """

    overrides: Tree = field(default_factory=dict)
    model_overrides: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)
    base: BaseArchitecture | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def resolve_architecture(part: ModelPart, model_schema: Schema, earlier: Mapping[str, Module]) -> Architecture:
    """Resolves the part of a config that says which model is built; its sections keep torchtitan's own keys.

    The base of an sft may be among the modules that are ``earlier`` in the experiment.
    """
    sections, key = part.sections, part.module
    section = _section(sections, "model")
    written = _section(sections, "experimental").get("custom_import")
    base, problems = _find_base(part, earlier) if _has_base(part) else (None, [])
    found = Architecture(base=base, problems=problems)
    if base is not None:
        section = _inherited(base, sections, section)
    elif _has_base(part):
        # The arguments of a model that isn't known are no mistakes.
        if "model" in sections:
            sections["model"], _ = split_overrides(section, model_schema, None, is_custom=True)
        return found
    name, flavor = section.get("name"), section.get("flavor")
    known = family(str(name.value)) if isinstance(name, Leaf) else None
    custom = _section(sections, "experimental").get("custom_import")
    if custom is None and isinstance(name, Leaf) and name.value in OWN_FAMILIES:
        set_leaf(sections, "experimental.custom_import", Leaf(OWN_FAMILIES[name.value], f"the family {name.value}"))
    is_custom = known is None and isinstance(custom, Leaf) and bool(custom.value)
    if isinstance(written, Leaf) and written.value and not source_files(str(written.value)):
        place = f"{key}.experimental.custom_import ({written.origin})"
        found.warnings.append(f"{place}: no module {written.value!r} here, nor on the Python path of this machine")
    args_schema = known["schema"] if known else None
    sections["model"], overrides = split_overrides(section, model_schema, args_schema, is_custom)
    flat = dict(leaves(overrides))
    params, wrong = read_params(part.params, f"{key}.params")
    found.problems += [*wrong, *twice_set(flat, params, key)]
    settings = part.settings if isinstance(part.settings, dict) else {}
    last = {one: flat[one] for one, _ in leaves(settings) if one in flat}
    found.overrides = without_empty_sections({**flat, **params, **last}, args_schema)
    if base is not None and not is_custom and not base.model_args:
        # The base's own module already reports why it has no arguments.
        found.overrides = {}
        return found
    if not is_custom:
        wrong = check_flavor(name, flavor, key, part.origin)
        if not wrong:
            assert known is not None
            assert flavor is not None
            found.model_args, wrong = resolve_model_args(known, flavor.value, found.overrides, key)
        if wrong:
            found.problems += wrong
            return found
    found.model_overrides = {one: leaf.value for one, leaf in leaves(found.overrides)}
    if base is not None:
        _inherit_args(part, found, base)
    return found


def _has_base(part: ModelPart) -> bool:
    """Whether the training starts from another: an sft does, a pretraining where one is named."""
    return part.kind != "pretrain" or _named_base(part) is not None


def _named_base(part: ModelPart) -> Leaf | Tree | None:
    """What is written as the base; None for nothing or null."""
    named = part.sections.get("base")
    return None if isinstance(named, Leaf) and named.value is None else named


def _find_base(part: ModelPart, earlier: Mapping[str, Module]) -> tuple[BaseArchitecture | None, list[Problem]]:
    """What a training starts from: an earlier module or an outside model; None after a mistake."""
    named, revision = _named_base(part), part.sections.get("base_revision")
    if part.kind == "prefer" and named is None:
        expected = "the model whose answers are to become better: a module, a folder, or owner/name on the Hub"
        return None, [Problem("a stage of the kind prefer needs a base", f"{part.module}.base", part.origin, expected)]
    if isinstance(named, dict):
        return _averaged(part, plain(named), first_origin(named) or part.origin, earlier)
    if named is None:
        named = part.sections["base"] = Leaf("pretrain", "default")
    wanted = str(named.value)
    trained = {name: one for name, one in earlier.items() if one.trains}
    other = named_module(wanted, trained) if wanted != BASE else None
    if other is not None:
        return _planned(other), []
    key, origin = f"{part.module}.base", named.origin
    try:
        base = outside_base(wanted, str(revision.value) if isinstance(revision, Leaf) and revision.value else None)
    except ConfigError as error:
        return None, [replace(one, key=key, origin=origin, message=_placed(one)) for one in error.problems]
    if base is not None or (part.is_broken and "/" not in wanted):
        return base, []
    before = f"a training module that is written before this one ({', '.join(trained) or 'there is none'})"
    outside = "the folder of a finished stage or of a model that transformers loads, or owner/name on the Hub"
    hint = misplaced_revision("base", wanted) or did_you_mean(wanted, trained)
    return None, [Problem(f"found {wanted!r}", key, origin, f"{before}, {outside}", hint)]


def _averaged(
    part: ModelPart, recipe: Any, origin: str, earlier: Mapping[str, Module]
) -> tuple[BaseArchitecture | None, list[Problem]]:
    """The first of the models whose mean is the base: all have its architecture. What they hold is checked later."""
    key, trained = f"{part.module}.base", [name for name, one in earlier.items() if one.trains]
    if wrong := misshapen(recipe):
        return None, [Problem(wrong[0], key, origin, wrong[1])]
    named = named_stages(recipe)
    if unknown := [name for name in named if name not in trained]:
        expected = " or ".join(trained) or "a module that trains"
        found = f"found {unknown[0]!r}, which is no module before this one that trains"
        return None, [Problem(found, key, origin, expected)]
    return _planned(earlier[named[0]]), []


def _placed(problem: Problem) -> str:
    """The message, headed by its place: the problem's own key and origin become those of ``base``."""
    place = ": ".join(part for part in (problem.origin, problem.key) if part and part != "base")
    return f"{place}: {problem.message}" if place else problem.message


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    # Where a section isn't a mapping, the schema's check reports it.
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _planned(other: Module) -> BaseArchitecture:
    model, training = _section(other.config, "model"), _section(other.config, "training")
    return BaseArchitecture(
        stage=other.name,
        kind=other.kind,
        model_name=str(model.get("name") or ""),
        flavor=str(model.get("flavor") or ""),
        model_args=other.model_args or other.model_overrides,
        seq_len=training.get("seq_len") or 0,
        overrides=other.model_overrides,
        config=other.config,
    )


def _inherited(base: BaseArchitecture, sections: Tree, section: Tree) -> Tree:
    """The base's model section with the sft's own keys laid over it; a custom family's import is inherited too."""
    origin = f"inherited from {base.stage}"
    custom = _section(base.config, "experimental").get("custom_import")
    if custom and "custom_import" not in _section(sections, "experimental"):
        set_leaf(sections, "experimental.custom_import", Leaf(custom, origin))
    model = {"name": base.model_name, "flavor": base.flavor}
    if (converters := _section(base.config, "model").get("converters")) is not None:
        model["converters"] = converters
    return {**{key: Leaf(value, origin) for key, value in model.items()}, **section}


def _inherit_args(part: ModelPart, found: Architecture, base: BaseArchitecture) -> None:
    """An sft keeps its base's architecture: arguments that it sets itself must equal the base's, unless mutable."""
    section, base_args, overrides = part.sections["model"], flatten(base.model_args), dict(leaves(found.overrides))
    config = {"model": {key: leaf.value for key, leaf in leaves(section)}}
    wanted = {"name": (section["name"], base.model_name), "flavor": (section["flavor"], base.flavor)}
    # Of a custom family a plan knows only the overridden arguments; the stage knows all.
    known = {one: leaf for one, leaf in overrides.items() if one in base_args}
    wanted |= {one: (leaf, base_args[one]) for one, leaf in known.items() if not may_differ(one, config)}
    seq_len = _section(part.sections, "training").get("seq_len")
    for one, (leaf, value) in wanted.items():
        follows = one == FOLLOWS_SEQ_LEN and isinstance(seq_len, Leaf) and leaf.value == seq_len.value
        if leaf.value != value and not follows:
            message = f"found {leaf.value!r}, and {base.stage} has {value!r}: fine-tuning keeps its base's architecture"
            hint = f"leave it out here, or change {base.stage}.model.{one} and pretrain again{free_rope(one)}"
            found.problems.append(Problem(message, f"{part.module}.model.{one}", leaf.origin, hint=hint))
    own = {one: leaf.value for one, leaf in overrides.items() if one not in known or may_differ(one, config)}
    # A base that has grown has other values than the overrides it was built with.
    found.model_overrides = {one: base_args.get(one, value) for one, value in flatten(base.overrides).items()} | own
    if found.model_args:
        found.model_args = copy.deepcopy(base.model_args)
        for one, value in own.items():
            set_argument(found.model_args, one, value)
