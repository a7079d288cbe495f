"""Finds the means among an evaluation's models, and refuses those that can't be made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import Problem
from titanflow.config.stages import NAME_EXPECTED, TAKEN, is_name, module_of, named_module
from titanflow.runs.contract import KIND_OF

if TYPE_CHECKING:
    from titanflow.config.module import Module

SHAPE = "{mean: [sft_a, sft_b], weights: [0.5, 0.5]}, or {mean: {of: pretrain, last: 5}}"
SUM_TO = 1e-6
"""How far from 1 the weights' sum may be: written with few digits, thirds are."""


def settle_means(modules: Mapping[str, Module]) -> list[Problem]:
    """Puts the means among ``evaluate.models`` into ``evaluate.means``, and leaves their names; returns mistakes.

    The mistakes are those of the means that trainings start from, too.
    """
    trained = [one for one in modules.values() if one.trains and isinstance(one.config["sft"]["base"], Mapping)]
    problems = [found for one in trained for found in _of(one, "sft.base", one.config["sft"]["base"], modules)]
    module = module_of("evaluate", modules)
    return problems + (_of_models(module, modules) if module is not None else [])


def _of_models(module: Module, modules: Mapping[str, Module]) -> list[Problem]:
    models = module.config["models"]
    written = {name: one for name, one in _mapping(models).items() if not isinstance(one, str)}
    if written:
        others = {name: one for name, one in models.items() if name not in written}
        if problems := _beside(module, others, modules):
            return problems
        module.config["models"] = list(models)
        module.config["means"] = {**module.config["means"], **written}
        _move_origins(module)
    return [problem for name in module.config["means"] for problem in _problems(module, name, modules)]


def _mapping(models: Any) -> Mapping[str, Any]:
    return models if isinstance(models, dict) else {}


def _beside(module: Module, others: Mapping[str, str], modules: Mapping[str, Module]) -> list[Problem]:
    """Models beside a mean that are no stage of the experiment, or are called otherwise than it."""
    problems = []
    for name, given in others.items():
        found = named_module(given, modules)
        if found is None or not found.trains:
            expected = "a stage of this experiment: a folder can't stand beside a mean"
            problems.append(module.problem(f"models.{name}", f"found {given!r}", expected))
        elif name != found.name:
            hint = f"write `{found.name}: {found.name}`"
            problems.append(module.problem(f"models.{name}", f"is another name for the stage {found.name}", hint=hint))
    return problems


def _move_origins(module: Module) -> None:
    for key in [key for key in module.origins if key.startswith("models.")]:
        module.origins.setdefault("models", module.origins[key])
        if key.split(".")[1] in module.config["means"]:
            module.origins[key.replace("models.", "means.", 1)] = module.origins.pop(key)


def _problems(module: Module, name: str, modules: Mapping[str, Module]) -> list[Problem]:
    recipe, key = module.config["means"][name], f"means.{name}"
    if not is_name(name):
        return [module.problem("models", f"found {name!r}", NAME_EXPECTED)]
    if name in (*modules, *TAKEN, *KIND_OF):
        return [module.problem(key, "the name means something else", "another name for the mean")]
    if name not in module.config["models"]:
        return [module.problem(key, "nothing asks for it", f"{name} among models")]
    return _of(module, key, recipe, modules)


def _of(module: Module, key: str, recipe: Any, modules: Mapping[str, Module]) -> list[Problem]:
    """Mistakes in a recipe, which stands at a key of a module."""
    if not isinstance(recipe, Mapping) or not recipe.keys() <= {"mean", "weights"} or "mean" not in recipe:
        return [module.problem(key, f"found {recipe!r}", f"a model's folder, or {SHAPE}")]
    given, weights = recipe["mean"], recipe.get("weights")
    if isinstance(given, Mapping):
        return _of_checkpoints(module, key, given, weights, modules)
    if not isinstance(given, list) or len(given) < 2:
        return [module.problem(key, f"found {given!r}", f"two stages or more: {SHAPE}")]
    if twice := [one for one in given if given.count(one) > 1]:
        return [module.problem(key, f"found {twice[0]!r} twice", "each stage once, with a weight")]
    if weights is not None and not _are_weights(weights, len(given)):
        return [module.problem(key, f"found weights {weights!r}", f"{len(given)} numbers from 0 that sum to 1")]
    found = [_trained(one, modules) for one in given]
    unknown = [one for one, other in zip(given, found, strict=True) if other is None]
    return [_no_stage(module, key, one, modules) for one in unknown]


def _are_weights(weights: Any, count: int) -> bool:
    if not isinstance(weights, list) or len(weights) != count:
        return False
    are_numbers = all(isinstance(one, int | float) and not isinstance(one, bool) and one >= 0 for one in weights)
    return are_numbers and abs(sum(weights) - 1) <= SUM_TO


def _of_checkpoints(
    module: Module, key: str, given: Mapping[str, Any], weights: Any, modules: Mapping[str, Module]
) -> list[Problem]:
    """Mistakes in ``{of: pretrain, last: 5}``, such as more checkpoints than the stage leaves."""
    last = given.get("last")
    if given.keys() != {"of", "last"} or not isinstance(last, int) or isinstance(last, bool) or last < 2:
        return [module.problem(key, f"found {dict(given)!r}", "{of: pretrain, last: 5}, with 2 or more checkpoints")]
    if weights is not None:
        return [module.problem(key, f"found weights {weights!r}", "none: checkpoints of a stage count alike")]
    stage = _trained(given["of"], modules)
    if stage is None:
        return [_no_stage(module, key, given["of"], modules)]
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


def _no_stage(module: Module, key: str, name: Any, modules: Mapping[str, Module]) -> Problem:
    known = [one.name for one in modules.values() if one.trains]
    return module.problem(key, f"{name!r} is no stage that trains", " or ".join(known) or "a module that trains")
