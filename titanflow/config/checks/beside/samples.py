"""Refuses answers beside a training where they couldn't be given, before anything is trained."""

from __future__ import annotations

from titanflow.common.errors import Problem
from titanflow.config.keys.beside.samples import Samples
from titanflow.config.module import Module

KEY = "samples.prompts"


def _check_samples(module: Module) -> list[Problem]:
    prompts, degrees, problems = module.config["samples"]["prompts"], module.config["parallelism"], []
    if not prompts:
        if module.config["samples"]["max_new_tokens"] == Samples().max_new_tokens:
            return []
        found, hint = "nothing is answered: samples.prompts isn't set", "set samples.prompts, or leave it out"
        return [module.problem("samples.max_new_tokens", found, hint=hint)]
    if not module.config["validation"]["enable"]:
        message = "prompts are answered at each validation, and there is none"
        problems.append(module.problem(KEY, message, "validation: {enable: true}"))
    if not all(prompt.strip() for prompt in prompts):
        problems.append(module.problem(KEY, "found an empty prompt", "a text to go on from"))
    if twice := next((prompt for prompt in prompts if prompts.count(prompt) > 1), None):
        problems.append(module.problem(KEY, f"found {twice!r} twice", "each prompt once"))
    if module.config["training"]["mock_data"]:
        message = "the training reads random tokens (training.mock_data), which are no text"
        problems.append(module.problem(KEY, message, hint="leave them out"))
    for kind in ("pipeline", "context"):
        if degrees[f"{kind}_parallel_degree"] > 1:
            message = f"found prompts, and with {kind} parallelism no rank has the logits of a whole text"
            hint = "during: {every: …} scores checkpoints under any parallelism"
            problems.append(module.problem(KEY, message, "none", hint))
    return problems


OF_TRAINING = (_check_samples,)
