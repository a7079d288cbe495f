"""Finds the means among an evaluation's models, and refuses those that can't be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import Problem
from titanflow.config.means.recipe import Mean, misshapen, named_stages
from titanflow.config.stages import NAME_EXPECTED, TAKEN, alike, is_name, modules_of, named_module
from titanflow.runs.contract import KIND_OF

if TYPE_CHECKING:
    from titanflow.config.module import Module


def settle_means(modules: Mapping[str, Module]) -> list[Problem]:
    """Puts the means among the models of evaluations into their ``means``, and leaves the names; returns mistakes.

    The mistakes are those of the means that trainings start from, too.
    """
    trained = [one for one in modules.values() if one.trains and isinstance(one.config["base"], Mapping)]
    problems = [found for one in trained for found in _of(one, "base", one.config["base"], modules)]
    evaluations = modules_of("evaluate", modules)
    problems += [found for one in evaluations for found in _of_models(one, modules)]
    problems = problems or list(_near(evaluations))
    return problems or [found for place, one in enumerate(evaluations) for found in _others(one, evaluations[:place])]


def _near(evaluations: Sequence[Module]) -> Iterator[Problem]:
    """Means whose names are one where case, dashes and underscores don't count, as modules' may not be."""
    first: dict[str, str] = {}
    for module in evaluations:
        for name in module.config["means"]:
            if (other := first.setdefault(alike(name), name)) != name:
                found = f"differs from {other} in case, dashes and underscores alone"
                yield module.problem(f"means.{name}", found, "another name")


def _others(module: Module, earlier: Sequence[Module]) -> list[Problem]:
    """The means of an evaluation that an earlier one describes otherwise: a mean has one folder in the run."""
    means, expected = module.config["means"], "another name, or the same mean in both"
    return [
        module.problem(f"means.{name}", f"{other.name} has another mean of this name", expected)
        for other in earlier
        for name in means.keys() & other.config["means"].keys()
        if means[name] != other.config["means"][name]
    ]


def _of_models(module: Module, modules: Mapping[str, Module]) -> list[Problem]:
    if models := _mapping(module.config["models"]):
        module.config["models"] = {name: one for name, one in models.items() if one is not None}
    models = module.config["models"]
    written = {name: one for name, one in _mapping(models).items() if not isinstance(one, str)}
    if written or any(_trained(one, modules) for one in _mapping(models).values()):
        others = {name: one for name, one in models.items() if name not in written}
        if problems := _beside(module, others, modules):
            return problems
        if twice := [name for name in written if name in module.config["means"]]:
            found = "the model is described here and in means"
            return [module.problem(f"models.{name}", found, "one of them") for name in twice]
        module.config["models"] = list(models)
        module.config["means"] = {**module.config["means"], **written}
        _move_origins(module)
    return [problem for name in module.config["means"] for problem in _problems(module, name, modules)]


def _mapping(models: Any) -> Mapping[str, Any]:
    return models if isinstance(models, dict) else {}


def _beside(module: Module, others: Mapping[str, str], modules: Mapping[str, Module]) -> list[Problem]:
    """Models beside a mean or a stage that are no stage of the experiment, or are called otherwise than it."""
    problems = []
    for name, given in others.items():
        found = named_module(given, modules)
        if found is None or not found.trains:
            expected = "a stage of this experiment: a folder can't stand beside a mean or a stage"
            hint = f"{module.name}.models.{name}: null leaves the model out"
            problems.append(module.problem(f"models.{name}", f"found {given!r}", expected, hint))
        elif name != found.name:
            hint = f"write `{found.name}: {found.name}`"
            problems.append(module.problem(f"models.{name}", f"is another name for the stage {found.name}", hint=hint))
    return problems


def _move_origins(module: Module) -> None:
    heads = tuple(f"models.{name}" for name in module.config["means"])
    for key in [key for key in module.origins if key.startswith("models.")]:
        module.origins.setdefault("models", module.origins[key])
        if any(key == head or key.startswith(f"{head}.") for head in heads):
            module.origins[key.replace("models.", "means.", 1)] = module.origins.pop(key)


def _problems(module: Module, name: str, modules: Mapping[str, Module]) -> list[Problem]:
    recipe, key = module.config["means"][name], f"means.{name}"
    if not is_name(name):
        return [module.problem("models", f"found {name!r}", NAME_EXPECTED)]
    if name in KIND_OF or alike(name) in (*map(alike, modules), *TAKEN):
        return [module.problem(key, "the name means something else", "another name for the mean")]
    if name not in module.config["models"]:
        return [module.problem(key, "nothing asks for it", f"{name} among models")]
    return _of(module, key, recipe, modules)


def _of(module: Module, key: str, recipe: Any, modules: Mapping[str, Module]) -> list[Problem]:
    """Mistakes in a recipe, which stands at a key of a module."""
    if wrong := misshapen(recipe):
        return [module.problem(key, *wrong)]
    if unknown := [one for one in named_stages(recipe) if _trained(one, modules) is None]:
        known = " or ".join(one.name for one in modules.values() if one.trains) or "a module that trains"
        return [module.problem(key, f"{one!r} is no stage that trains", known) for one in unknown]
    return _of_checkpoints(module, key, Mean.of(recipe), modules)


def _of_checkpoints(module: Module, key: str, mean: Mean, modules: Mapping[str, Module]) -> list[Problem]:
    """A mean of more checkpoints than its stage leaves."""
    stage, last = modules[mean.stages[0]], mean.last
    checkpoint, steps = stage.config["checkpoint"], stage.config["training"]["steps"]
    kept, saved = checkpoint["keep_latest_k"], -(-steps // checkpoint["interval"])
    if kept and kept < last:
        hint = f"set {stage.name}.checkpoint.keep_latest_k: {last}, or 0 to keep all"
        return [module.problem(key, f"found the last {last}, and {stage.name} keeps {kept} checkpoints", hint=hint)]
    if saved < last:
        hint = f"set {stage.name}.checkpoint.interval: {max(steps // last, 1)}"
        return [module.problem(key, f"found the last {last}, and {stage.name} saves {saved} checkpoints", hint=hint)]
    return []


def _trained(name: Any, modules: Mapping[str, Module]) -> Module | None:
    found = modules.get(name) if isinstance(name, str) else None
    return found if found is not None and found.trains else None
