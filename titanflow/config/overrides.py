"""Values set on a command line (``--set key=value``) or by a flow's parameters, and the places they go to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.utf8_mode import utf8_problem
from titanflow.config.files.foreign_names import foreign_hint
from titanflow.config.files.scheduler_names import scheduler_hint
from titanflow.config.files.schema import Schema, closest, dataclass_schema, known_keys
from titanflow.config.keys.experiment import BASE_KEYS, ExperimentSpec
from titanflow.config.module import stage_schema
from titanflow.config.stages import kind_of
from titanflow.files.emptied_sections import emptied
from titanflow.files.interpolation import replaced
from titanflow.files.yaml_source import (
    Leaf,
    Tree,
    as_tree,
    may_be_text,
    nested,
    parse_mapping,
    parse_scalar,
    set_leaf,
)
from titanflow.runs.contract import StageKind

FILE_KEYS = ("framework", "stage", "config", "model", "data", "validation_data")
"""Keys of a module that name a file; with keys below them they are sections."""


@dataclass(frozen=True)
class Setting:
    """One value from outside the files: its dotted key, the value, and its origin.

    ``text`` is the text that the value was read from, if any: see :class:`titanflow.files.yaml_source.Leaf`.
    """

    key: str
    value: Any
    origin: str
    text: str | None = None

    @property
    def parameter(self) -> Any:
        """The value of a flow's parameter that means the same."""
        if isinstance(self.value, str):
            # A text is read as YAML there: one that would be something else keeps its quotes.
            return self.value if parse_scalar(self.value) == self.value else json.dumps(self.value)
        is_same = self.text is None or str(self.value) == self.text
        return self.value if is_same else self.text

    @property
    def tree(self) -> Leaf | Tree:
        if isinstance(self.value, dict):
            return as_tree(self.value, self.origin) if self.text is None else parse_mapping(self.text, self.origin)
        return Leaf(self.value, self.origin, self.text)


def parse_settings(texts: Iterable[str], option: str = "--set") -> list[Setting]:
    """An option's arguments, each ``dotted.key=value`` with the value read as YAML.

    Raises:
        ConfigError: an argument without ``=``, or not in UTF-8.
    """
    settings = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(Problem(f"found {text!r}", key=option, expected="dotted.key=value"))
        settings.append(_of_text(key.strip(), value, f"{option} {text}"))
    return settings


def parameter_settings(parameters: Mapping[str, Any]) -> list[Setting]:
    """A flow's ``overrides``: the same dotted keys, with typed values; a text is read as ``--set`` reads it."""
    origins = {key: f"flow parameter {key}" for key in parameters}
    return [
        _of_text(key, value, origins[key]) if isinstance(value, str) else Setting(key, value, origins[key])
        for key, value in parameters.items()
    ]


def _of_text(key: str, text: str, origin: str) -> Setting:
    if problem := utf8_problem(text, key):
        raise ConfigError(problem)
    value = parse_scalar(text)
    # A quoted or empty value is what YAML reads; a number may also be meant as its text.
    is_kept = isinstance(value, dict) or may_be_text(value, text)
    return Setting(key, value, origin, text if is_kept else None)


def lay_over(experiment: Tree, settings: Iterable[Setting]) -> tuple[dict[str, Tree], list[Problem]]:
    """Writes the settings into an experiment's tree, in place; returns the modules' own settings, and mistakes.

    References are replaced as in a file, and only here: before that, a setting may be handed on as a flow's parameter.

    ``module.section.key`` overrides the module's files and the experiment, ``module.model`` names another file, and
    any other key is one of the experiment file itself. A module that is set to null is left out.
    """
    problems: list[Problem] = []
    modules = experiment.get("modules")
    specs = modules if isinstance(modules, dict) else {}
    over: dict[str, Tree] = {name: {} for name in specs}
    for setting in settings:
        tree = replaced({setting.key: setting.tree}, problems)[setting.key]
        if problem := _place(experiment, specs, over, setting, tree):
            problems.append(problem)
    return over, problems


def _place(experiment: Tree, specs: Tree, over: dict[str, Tree], setting: Setting, tree: Leaf | Tree) -> Problem | None:
    # Keys may be written as in the experiment's file, too: `modules.pretrain.model`.
    module, _, key = setting.key.removeprefix("modules.").partition(".")
    spec = specs.get(module)
    if not isinstance(spec, dict):
        return _place_at_top(experiment, specs, setting, tree)
    if not key and isinstance(tree, Leaf) and tree.value is None:
        del specs[module], over[module]
        return None
    if not key:
        hint = f"`{setting.key}=null` leaves the module out"
        return Problem("names a module, not a value in it", key=setting.key, origin=setting.origin, hint=hint)
    # And so may those below its overrides: `modules.pretrain.overrides.training.steps`.
    target = spec if _is_of_spec(kind_of(module, spec), key, tree) else over[module]
    return _lay(target, key.removeprefix("overrides."), setting, tree)


def _lay(target: Tree, key: str, setting: Setting, tree: Leaf | Tree) -> Problem | None:
    """Lays a setting over a tree, unless it is an empty value in a section's place."""
    if problem := next(emptied(target, nested(key, tree), setting.key.removesuffix(key)), None):
        return replace(problem, key=setting.key, origin=setting.origin)
    set_leaf(target, key, tree)
    return None


def _is_of_spec(kind: StageKind | None, key: str, value: Leaf | Tree) -> bool:
    """Whether a module's key belongs to its entry in the experiment's file, rather than to its stage's config."""
    if key.partition(".")[0] in ("params", *BASE_KEYS):
        return True
    if key in FILE_KEYS:
        # A section is laid over the file's content. A publication's `model` is the name of a stage.
        return isinstance(value, Leaf) and not (key == "model" and kind == "publish")
    return False


def _place_at_top(experiment: Tree, specs: Tree, setting: Setting, tree: Leaf | Tree) -> Problem | None:
    known = [key for key in known_keys(dataclass_schema(ExperimentSpec)) if key != "modules"]
    if setting.key in known:
        return _lay(experiment, setting.key, setting, tree)
    kinds, modules = {name: kind_of(name, spec) for name, spec in specs.items()}, list(specs)
    hint = _by_kind(setting.key, kinds) or scheduler_hint(setting.key, setting.value, known, "")
    hint = hint or foreign_hint([setting.key], known, "")
    if not hint:
        near = closest(setting.key, known)
        named = [f"{module}.{one}" for module in modules if (one := _key_of(kinds[module], setting.key))]
        starts = f"a module's key starts with the module: {', '.join(named or modules)}"
        misspelt = "" if named else _of_section(setting.key, known) or _misspelt(setting.key, kinds)
        hint = f"did you mean `{near}`?" if near else misspelt or starts
    return Problem("unknown key", key=setting.key, origin=setting.origin, hint=hint)


def _key_of(kind: StageKind | None, key: str) -> str:
    """A module's key that begins with the same section or, without a section, has the same name; empty without one."""
    if kind is None:
        return ""
    schema, (section, _, below) = stage_schema(kind), key.partition(".")
    if (found := schema["properties"].get(section)) is not None and (not below or _has_keys(found)):
        return key
    return next((one for one in known_keys(schema) if one.rpartition(".")[2] == key), "")


def _has_keys(schema: Schema) -> bool:
    """Whether a value is a section, or may be a mapping."""
    return any(one in schema for one in ("properties", "additionalProperties")) or any(
        map(_has_keys, schema.get("anyOf", ()))
    )


def _of_section(key: str, known: Iterable[str]) -> str:
    """The keys of a section of the experiment, of which ``key`` names one that it lacks."""
    section = key.partition(".")[0]
    own = [one.removeprefix(f"{section}.") for one in known if one.startswith(f"{section}.")]
    return f"{section} has {', '.join(own)}" if own else ""


def _misspelt(key: str, kinds: Mapping[str, StageKind | None]) -> str:
    """A hint with the module whose name, or whose kind, is nearest to what ``key`` begins with."""
    named: dict[str, str] = {kind: module for module, kind in reversed(list(kinds.items())) if kind is not None}
    named |= {module.lower(): module for module in kinds}
    near = get_close_matches(key.removeprefix("modules.").partition(".")[0].lower(), named, n=1)
    return f"did you mean {named[near[0]]}?" if near else ""


def _by_kind(key: str, kinds: Mapping[str, StageKind | None]) -> str:
    """A hint where a key begins with another name of a stage than its module has here."""
    named, _, rest = key.removeprefix("modules.").partition(".")
    meant = kind_of(named, None)
    own = next((module for module, kind in kinds.items() if kind is not None and kind == meant), None)
    if own is None and rest and meant is not None:
        return f"the experiment has no {named}: modules: {{{named}: {{…}}}} adds the stage"
    return f"did you mean `{own}.{rest}`?" if own and rest else ""
