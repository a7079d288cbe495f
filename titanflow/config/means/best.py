"""The best checkpoint of a training, if one is published: a model of the evaluation beside its others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from titanflow.common.errors import Problem
from titanflow.config.stages import modules_of
from titanflow.runs.scores.best import KEY, PART, task_and_metric

if TYPE_CHECKING:
    from titanflow.config.module import Module

EXPECTED = f"{PART}/task/metric, as {PART}/stdlib_kind/acc"


def settle_best(modules: Mapping[str, Module]) -> list[Problem]:
    """Adds the checkpoints that publications ask for to the models of their evaluations, and publishes those models.

    The name of one is that of its training with ``.best`` behind it, which no module has. Returns mistakes.
    """
    return [problem for publish in modules_of("publish", modules) for problem in _settle(publish, modules)]


def _settle(publish: Module, modules: Mapping[str, Module]) -> list[Problem]:
    by, evaluate = publish.config["checkpoint"]["best"], modules.get(publish.config["evaluation"])
    if by is None:
        return []
    if problems := _problems(publish, by, evaluate, modules):
        return problems
    training = modules.get(publish.config["model"])
    if training is None or evaluate is None or not training.trains:
        # What the experiment doesn't train is refused as a model (titanflow.config.checks.family).
        return []
    name, recipe = f"{training.name}.best", {"best": {"of": training.name, "by": by}}
    for other in modules_of("evaluate", modules):
        if (before := other.config["means"].get(name, recipe)) != recipe:
            found = f"found {by!r}, and another publication takes the best of {training.name} by {before['best']['by']}"
            return [publish.problem(KEY, found, "one score for both: a training keeps one best checkpoint")]
    publish.config["model"] = name
    if name in evaluate.config["means"]:
        return []
    evaluate.config["models"] = [*evaluate.config["models"], name]
    evaluate.config["means"] = {**evaluate.config["means"], name: recipe}
    origins = {"of": publish.origins.get("model", ""), "by": publish.origins.get(KEY, "")}
    evaluate.origins |= {f"means.{name}.best.{key}": origin for key, origin in origins.items()}
    return []


def _problems(publish: Module, by: str, evaluate: Module | None, modules: Mapping[str, Module]) -> list[Problem]:
    model = publish.config["model"]
    part = by.partition("/")[0]
    if part != PART or not all(task_and_metric(by)):
        hint = f"{part} is for the scores that are reported: a choice by them would flatter" if part == "test" else ""
        return [publish.problem(KEY, f"found {by!r}", EXPECTED, hint)]
    if evaluate is None:
        hint = "add an evaluate module, which exports and scores it"
        return [publish.problem(KEY, f"found {by!r}, and nothing is evaluated", hint=hint)]
    if model in evaluate.config["means"]:
        known = " or ".join(one.name for one in modules.values() if one.trains)
        return [publish.problem(KEY, f"{model} is a mean, which has one checkpoint", f"{publish.name}.model: {known}")]
    training = modules.get(model)
    if training is None or not training.trains:
        return []
    if not isinstance(evaluate.config["models"], list):
        expected = f"models: [{model}]: folders can't stand beside it"
        return [publish.problem(KEY, f"found {by!r}, and {evaluate.name}.models names folders", expected)]
    if training.config["during"]["every"] is None:
        hint = f"set {model}.during.every: {training.config['checkpoint']['interval']}"
        return [publish.problem(KEY, f"found {by!r}, and {model} isn't scored while it trains", hint=hint)]
    return []
