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


def lay_over(experiment: Tree, settings: Iterable[Setting]) -> tuple[dict[str, Tree], list[Problem]]:
    """Writes the settings into an experiment's tree, in place; returns what belongs to modules, and mistakes.

    ``module.section.key`` goes over everything that the module's files and the experiment say, ``module.model``
    names another file, any other key is one of the experiment file itself.
    """
    problems: list[Problem] = []
    modules = experiment.get("modules")
    specs = modules if isinstance(modules, dict) else {}
    over: dict[str, Tree] = {name: {} for name in specs}
    for setting in settings:
        problem = _place(experiment, specs, over, setting)
        if problem:
            problems.append(problem)
    return over, problems


def _place(experiment: Tree, specs: Tree, over: dict[str, Tree], setting: Setting) -> Problem | None:
    # The key as it stands in the experiment's file, `modules.pretrain.model`, is the same key.
    module, _, key = setting.key.removeprefix("modules.").partition(".")
    leaf = Leaf(setting.value, setting.origin)
    if module not in specs:
        return _place_at_top(experiment, list(specs), setting)
    if not key:
        return Problem("names a module, not a value in it", key=setting.key, origin=setting.origin)
    is_of_spec = key in FILE_KEYS or key.startswith("params.")
    set_leaf(specs[module] if is_of_spec else over[module], key, leaf)
    return None


def _place_at_top(experiment: Tree, modules: list[str], setting: Setting) -> Problem | None:
    from titanflow.config.experiment_spec import ExperimentSpec
    from titanflow.config.schema import dataclass_schema, known_keys

    known = [key for key in known_keys(dataclass_schema(ExperimentSpec)) if key != "modules"]
    if setting.key in known and setting.key != "launcher":
        set_leaf(experiment, setting.key, Leaf(setting.value, setting.origin))
        return None
    near = closest(setting.key, known)
    named = [f"{module}.{setting.key}" for module in modules]
    hint = f"did you mean `{near}`?" if near else f"a module's key starts with the module: {', '.join(named)}"
    return Problem("unknown key", key=setting.key, origin=setting.origin, hint=hint)
