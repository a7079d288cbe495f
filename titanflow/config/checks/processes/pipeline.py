"""Checks that batch and layers fit a pipeline's schedule; torchtitan and torch check once each rank has its model.

From torchtitan 0.2.2's ``distributed/pipeline_parallel.py`` and torch 2.13's ``pipelining/schedules.py``.
"""

from __future__ import annotations

import math
from pathlib import Path

from titanflow.common.errors import Problem
from titanflow.config.batch import data_parallel_ranks, local_share
from titanflow.config.keys.optimizer import MUON
from titanflow.config.module import Module

ONE_STAGE = ("1f1b", "gpipe", "pipelineschedulesingle")
"""Schedules with one stage a rank; the others have two or more."""
TWO_STAGES = ("zbvzerobubble", "dualpipev")
"""Schedules with exactly two stages a rank."""
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
    return [*_check_stages(module), *_check_microbatches(module), *_check_optimizer(module)]


def _check_stages(module: Module) -> list[Problem]:
    degrees, layers = module.config["parallelism"], module.model_args.get("n_layers")
    if not layers or degrees["module_fqns_per_model_part"] is not None:
        return []
    ranks, schedule = degrees["pipeline_parallel_degree"], degrees["pipeline_parallel_schedule"]
    first, last = (degrees[f"pipeline_parallel_{end}_stage_less_layers"] for end in ("first", "last"))
    weight = layers + first + last
    each = degrees["pipeline_parallel_layers_per_stage"]
    stages = _stages(module)
    if each is not None:
        key = "pipeline_parallel_layers_per_stage"
        cut = f"found {each}, which cuts {weight} layers into {stages} stages"
        if stages % ranks:
            return [parallel_problem(module, key, cut, f"a number that gives a multiple of {ranks} stages")]
        wanted, found = _stages_a_rank(schedule), stages // ranks
        if not {"one": found == 1, "two": found == 2, "two or more": found >= 2}[wanted]:
            return [parallel_problem(module, key, f"{cut}, {found} a rank", f"{wanted} a rank, which {schedule} has")]
    if max(first, last, 1) > weight // stages:
        message = f"found {ranks}, which cuts {weight} layers (embedding and output counted) into {stages} stages"
        expected = f"at least {max(first, last, 1)} layers in each stage"
        hint = f"fewer stages: {schedule} has {_stages_a_rank(schedule)} a rank"
        return [parallel_problem(module, "pipeline_parallel_degree", message, expected, hint)]
    return []


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
    least = _stages(module) if schedule.lower() in ALL_BUSY else 1
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
    degrees, layers = module.config["parallelism"], module.model_args.get("n_layers")
    ends = [degrees[f"pipeline_parallel_{end}_stage_less_layers"] for end in ("first", "last")]
    if module.config["optimizer"]["name"] == MUON and layers and (layers + sum(ends)) // _stages(module) <= max(ends):
        found = f"found Muon, and a stage of the pipeline has no layer (of {layers} in {_stages(module)} stages)"
        return [module.problem("optimizer.name", found, "AdamW, or fewer stages")]
    if not module.config["optimizer"]["early_step_in_backward"]:
        return []
    message = "found true: torchtitan can't step in a pipeline's backward pass"
    return [module.problem("optimizer.early_step_in_backward", message, "false")]


def _stages(module: Module) -> int:
    degrees, layers = module.config["parallelism"], module.model_args.get("n_layers")
    each = degrees["pipeline_parallel_layers_per_stage"]
    if each is None or not layers:
        is_one = degrees["pipeline_parallel_schedule"].lower() in ONE_STAGE
        return int(degrees["pipeline_parallel_degree"]) * (1 if is_one else 2)
    ends = sum(degrees[f"pipeline_parallel_{end}_stage_less_layers"] for end in ("first", "last"))
    return math.ceil((layers + ends) / each)


def _stages_a_rank(schedule: str) -> str:
    if schedule.lower() in ONE_STAGE:
        return "one"
    return "two" if schedule.lower() in TWO_STAGES else "two or more"


def parallel_problem(module: Module, key: str, message: str, expected: str, hint: str = "") -> Problem:
    return module.problem(f"parallelism.{key}", message, expected, hint)
