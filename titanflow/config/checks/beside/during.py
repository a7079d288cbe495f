"""Refuses scores beside a training where they couldn't be made, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable

from titanflow.common.errors import Problem
from titanflow.config.keys.beside.during import During
from titanflow.config.module import Module

HOLDS = "the stage's task holds checkpoints aside and scores them in a process beside the training's"


def _check_every(module: Module) -> list[Problem]:
    during, interval = module.config["during"], module.config["checkpoint"]["interval"]
    every = during["every"]
    if every is None:
        hint = f"set during.every: {_near(interval, interval)}"
        idle = [f"during.{key}" for key in during if during[key] != getattr(During(), key)]
        return [module.problem(key, "nothing is scored: during.every isn't set", hint=hint) for key in idle[:1]]
    if every % interval:
        message = f"found {every}, and a checkpoint is saved every {interval} steps (checkpoint.interval)"
        hint = f"during: {{every: {_near(every, interval)}}}"
        return [module.problem("during.every", message, f"a multiple of {interval}", hint)]
    return []


def _near(every: int, interval: int) -> int:
    return max(interval, round(every / interval) * interval)


def _check_place(module: Module) -> list[Problem]:
    """Stages whose task isn't beside the training, or sees only a part of its checkpoints."""
    if module.config["during"]["every"] is None:
        return []
    launcher, reason, key = module.config["launcher"], "", ""
    if (kind := launcher["kind"]) != "local":
        key, reason = "launcher.kind", f"the training is a job in a cluster ({kind}), and its nodes score nothing else"
    elif launcher["pool"]:
        key, reason = "launcher.pool", f"the training runs in the pool {launcher['pool']}, maybe on another machine"
    elif launcher["nnodes"] > 1:
        key, reason = "launcher.nnodes", "the training runs on several machines, each with a part of a checkpoint"
    if not reason:
        return []
    hint = f"take {module.name}.during out; an evaluation of checkpoint/step-N with backend: native gives the same"
    return [module.problem(key, f"{reason}: {HOLDS}", f"a training on this machine, or no {module.name}.during", hint)]


def _check_tokenizer(module: Module) -> list[Problem]:
    if module.config["during"]["every"] is None or not module.config["training"]["mock_data"]:
        return []
    message = "the training reads random tokens (training.mock_data), which no question is asked in"
    return [module.problem("during.every", message, hint="leave it out")]


def check_scored_modules(modules: Iterable[Module]) -> list[Problem]:
    """Scores beside a training that no evaluate module says how to make."""
    hint = "the evaluate module says how its tasks are asked: which items, templates and batches"
    return [
        module.problem("during.every", "the experiment has no evaluate module", "modules: {evaluate: …}", hint)
        for module in modules
        if module.trains and module.config["during"]["every"] is not None and not module.config["during"]["evaluation"]
    ]


OF_TRAINING = (_check_every, _check_place, _check_tokenizer)
