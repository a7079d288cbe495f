"""Checks that batch, layers and optimizer fit a pipeline; torchtitan and torch check once each rank has its model.

From torchtitan 0.2.2's ``distributed/pipeline_parallel.py`` and torch 2.13's ``pipelining/schedules.py``.
"""

from __future__ import annotations

from pathlib import Path

from titanflow.common.errors import Problem
from titanflow.config.batch import data_parallel_ranks, local_share
from titanflow.config.checks.processes.pipeline_cut import check_cut, parallel_problem, stage_count, stage_layers
from titanflow.config.keys.optimizer import MUON
from titanflow.config.module import Module

ROUNDS = ("interleaved1f1b", "interleavedzerobubble")
"""Schedules that work through the microbatches in equal rounds."""
ALL_BUSY = ("1f1b", "dualpipev")
"""Schedules that need a microbatch for each stage."""
ABSTRACT = ("pipelineschedulesingle", "pipelineschedulemulti")
"""torch's abstract base classes: valid names, but no schedules."""


def check_pipeline(module: Module) -> list[Problem]:
    """Assumes that the degrees of parallelism fit the processes, and that the ranks can share the global batch."""
    degrees = module.config["parallelism"]
    if degrees["pipeline_parallel_degree"] < 2:
        return []
    if (csv := degrees["pipeline_parallel_schedule_csv"]) and not Path(csv).is_file():
        key = "parallelism.pipeline_parallel_schedule_csv"
        return [module.problem(key, f"no such file: {csv}", "a file with a pipeline schedule that torch can read")]
    if not csv and degrees["pipeline_parallel_schedule"].lower() in ABSTRACT:
        key, found = "parallelism.pipeline_parallel_schedule", degrees["pipeline_parallel_schedule"]
        return [module.problem(key, f"found {found!r}, an abstract class of torch's", "1F1B, Interleaved1F1B, …")]
    return check_cut(module) or [*_check_microbatches(module), *_check_optimizer(module)]


def _check_microbatches(module: Module) -> list[Problem]:
    degrees, training = module.config["parallelism"], module.config["training"]
    size, schedule = degrees["pipeline_parallel_microbatch_size"], degrees["pipeline_parallel_schedule"]
    local = training["local_batch_size"]
    rows = local_share(training["global_batch_size"], local, data_parallel_ranks(module.config)) or local
    taken = f"a rank takes {rows} rows at a time"
    if rows % size:
        message = f"found {size}, and {taken}"
        return [parallel_problem(module, "pipeline_parallel_microbatch_size", message, f"a divisor of {rows}")]
    count, ranks = rows // size, degrees["pipeline_parallel_degree"]
    problems = _check_validation(module, count)
    if degrees["pipeline_parallel_schedule_csv"]:
        return problems
    least = stage_count(module) if schedule.lower() in ALL_BUSY else 1
    if count < least:
        message = f"{taken}: {count} microbatches of {size}, and {schedule} needs {least}, one a stage"
        return [*problems, module.problem("training.local_batch_size", message, f"at least {least * size}")]
    rounds = max(1, count // ranks)
    if schedule.lower() in ROUNDS and count % rounds:
        message = f"{taken}: {count} microbatches of {size}, and {schedule} works through them in {rounds} equal rounds"
        return [*problems, module.problem("training.local_batch_size", message, f"a multiple of {ranks * size}")]
    return problems


def _check_validation(module: Module, microbatches: int) -> list[Problem]:
    """The pipeline cuts each batch of validation into as many microbatches as in training."""
    rows = module.config["validation"]["local_batch_size"]
    if not module.config["validation"]["enable"] or rows % microbatches == 0:
        return []
    message = f"found {rows}, and the pipeline cuts each batch into {microbatches} microbatches"
    return [module.problem("validation.local_batch_size", message, f"a multiple of {microbatches}")]


def _check_optimizer(module: Module) -> list[Problem]:
    # Each stage has an optimizer of its own, and the schedule of one is saved for all, with its list of rates.
    layers = stage_layers(module)
    if module.config["optimizer"]["name"] == MUON and 0 in layers:
        found = f"found Muon, and stage {layers.index(0)} of the pipeline has no layer (layers of each stage: {layers})"
        return [module.problem("optimizer.name", found, "AdamW, or a layer in each stage")]
    if not module.config["optimizer"]["early_step_in_backward"]:
        return []
    message = "found true: torchtitan can't step in a pipeline's backward pass"
    return [module.problem("optimizer.early_step_in_backward", message, "false")]
