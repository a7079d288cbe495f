"""Refuses a chunked loss where its gradients would be asked for twice, or there is no head to cut at."""

from __future__ import annotations

from titanflow.architectures.families.registry import family_of
from titanflow.common.errors import Problem
from titanflow.config.module import Module

KEY = "training.loss_chunks"
TWO_PASSES = ("interleavedzerobubble", "zbvzerobubble", "dualpipev")
"""Schedules of pipelines that compute gradients of inputs in one backward pass and those of weights in another."""


def check_loss_chunks(module: Module) -> list[Problem]:
    """What keeps a training module from the parts that `training.loss_chunks` asks for."""
    config, degrees = module.config, module.config["parallelism"]
    chunks, schedule = config["training"]["loss_chunks"], degrees["pipeline_parallel_schedule"]
    if chunks == 1:
        return []
    if family_of(config["model"]["name"]).own_loss:
        return [module.problem(KEY, f"found {chunks}, and {config['model']['name']} has a loss of its own", "1")]
    csv = degrees["pipeline_parallel_schedule_csv"]
    if degrees["pipeline_parallel_degree"] > 1 and (csv or schedule.lower() in TWO_PASSES):
        found = f"found {chunks}, and {csv or schedule} may have a second backward pass, for the weights"
        return [module.problem(KEY, found, "1, or another schedule: 1F1B, Interleaved1F1B, GPipe")]
    if degrees["tensor_parallel_degree"] > 1 and degrees["disable_loss_parallel"]:
        found = f"found true, and in {chunks} parts each rank computes the loss of its part of the vocabulary"
        return [module.problem("parallelism.disable_loss_parallel", found, f"false, or {KEY}: 1")]
    return []


OF_TRAINING = (check_loss_chunks,)
