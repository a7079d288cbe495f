"""Values set from a command line (``--set key=value``) or a flow's parameters, put where they belong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from titanflow.config.schema import closest
from titanflow.config.yaml_source import Leaf, Tree, parse_scalar, set_leaf
from titanflow.errors import ConfigError, Problem

FILE_KEYS = ("framework", "config", "model", "data", "validation_data")
"""Keys of a module that name a file; the same names with something below them are sections."""


@dataclass(frozen=True)
class Setting:
    """One value from outside the files: its dotted key, the value, and where it came from."""

    key: str
    value: Any
    origin: str


def parse_settings(texts: Iterable[str]) -> list[Setting]:
    """``--set`` arguments, each ``dotted.key=value`` with the value read as YAML.

    Raises:
        ConfigError: an argument without ``=``.
    """
    settings = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(Problem(f"found {text!r}", key="--set", expected="dotted.key=value"))
        settings.append(Setting(key.strip(), parse_scalar(value), f"--set {text}"))
    return settings


def parameter_settings(parameters: Mapping[str, Any]) -> list[Setting]:
    """A flow's ``overrides``: the same dotted keys, with values that have their types already."""
    return [Setting(key, value, f"flow parameter {key}") for key, value in parameters.items()]


def lay_over(experiment: Tree, settings: Iterable[Setting]) -> list[Problem]:
    """Writes the settings into an experiment's tree, in place; returns what could not be placed.

    ``module.section.key`` becomes part of that module's ``overrides``, ``module.model`` names another file, any
    other key is one of the experiment file itself.
    """
    problems = []
    modules = experiment.get("modules")
    names = list(modules) if isinstance(modules, dict) else []
    for setting in settings:
        problem = _place(experiment, names, setting)
        if problem:
            problems.append(problem)
    return problems


def _place(experiment: Tree, modules: list[str], setting: Setting) -> Problem | None:
    head, _, rest = setting.key.partition(".")
    leaf = Leaf(setting.value, setting.origin)
    if head == "modules":
        return Problem("leave `modules.` out", key=setting.key, origin=setting.origin, expected=rest)
    if head not in modules:
        return _place_at_top(experiment, modules, setting)
    if not rest:
        return Problem("names a module, not a value in it", key=setting.key, origin=setting.origin)
    module = experiment["modules"][head]
    if rest in FILE_KEYS:
        module[rest] = leaf
        return None
    if rest.startswith("params."):
        set_leaf(module, rest, leaf)
        return None
    if not isinstance(module.get("overrides"), dict):
        module["overrides"] = {}
    set_leaf(module["overrides"], rest, leaf)
    return None


def _place_at_top(experiment: Tree, modules: list[str], setting: Setting) -> Problem | None:
    from titanflow.config.additions import ExperimentSpec
    from titanflow.config.schema import dataclass_schema, known_keys

    known = [key for key in known_keys(dataclass_schema(ExperimentSpec)) if key != "modules"]
    if setting.key in known and setting.key != "launcher":
        set_leaf(experiment, setting.key, Leaf(setting.value, setting.origin))
        return None
    near = closest(setting.key, known)
    named = [f"{module}.{setting.key}" for module in modules]
    hint = f"did you mean `{near}`?" if near else f"a module's key starts with the module: {', '.join(named)}"
    return Problem("unknown key", key=setting.key, origin=setting.origin, hint=hint)
