"""How a pipeline cuts a model's layers into stages, and cuts that torchtitan can't make, or would make without a word.

From ``pipeline_llm`` and ``generate_llm_fqn_per_model_part`` of torchtitan 0.2.2's ``pipeline_parallel.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from titanflow.architectures.blocks import EMBEDDINGS, HEAD
from titanflow.architectures.families.registry import family_of
from titanflow.common.errors import Problem
from titanflow.config.module import Module

ONE_STAGE = ("1f1b", "gpipe", "pipelineschedulesingle")
"""Schedules with one stage a rank; the others have two or more."""
TWO_STAGES = ("zbvzerobubble", "dualpipev")
"""Schedules with exactly two stages a rank."""
PARTS, EACH = "module_fqns_per_model_part", "pipeline_parallel_layers_per_stage"
"""The keys of ``parallelism`` that cut by names and by a number of layers; the first goes before the second."""


def check_cut(module: Module) -> list[Problem]:
    """Stages that the ranks or the schedule can't share, or that would hold something else than the model."""
    degrees, layers = module.config["parallelism"], module.model_args.get("n_layers")
    if not layers:
        return []
    if (parts := degrees[PARTS]) is not None:
        return _check_number(module, PARTS, f"found {len(parts)} stages") or _check_parts(module, parts)
    stages, (first, last), all_layers = stage_count(module), _ends(module), _weight(module)
    if degrees[EACH] is not None:
        found = f"found {degrees[EACH]}, which cuts {all_layers} layers into {stages} stages"
        if problems := _check_number(module, EACH, found):
            return problems
    if max(first, last, 1) <= all_layers // stages:
        return []
    ranks, schedule = degrees["pipeline_parallel_degree"], degrees["pipeline_parallel_schedule"]
    message = f"found {ranks}, which cuts {all_layers} layers (embedding and output counted) into {stages} stages"
    expected = f"at least {max(first, last, 1)} layers in each stage"
    hint = f"fewer stages: {schedule} has {_stages_a_rank(schedule)} a rank"
    return [parallel_problem(module, "pipeline_parallel_degree", message, expected, hint)]


def stage_count(module: Module) -> int:
    """The number of stages of all ranks together."""
    degrees = module.config["parallelism"]
    if degrees[PARTS] is not None:
        return len(degrees[PARTS])
    if degrees[EACH] is not None and module.model_args.get("n_layers"):
        return math.ceil(_weight(module) / degrees[EACH])
    is_one = degrees["pipeline_parallel_schedule"].lower() in ONE_STAGE
    return int(degrees["pipeline_parallel_degree"]) * (1 if is_one else 2)


def stage_layers(module: Module) -> list[int]:
    """The number of layers in each stage, of a cut that :func:`check_cut` accepts; empty if nobody knows.

    Embedding and output count as layers of the first and the last stage. The first stages have one more where the
    division leaves some.
    """
    if not module.model_args.get("n_layers"):
        return []
    if (parts := module.config["parallelism"][PARTS]) is not None:
        return [sum(name.startswith("layers.") for name in part) for part in parts]
    stages, (first, last) = stage_count(module), _ends(module)
    each, more = divmod(_weight(module), stages)
    counts = [each + (stage < more) for stage in range(stages)]
    counts[0] -= first
    counts[-1] -= last
    return counts


def _ends(module: Module) -> tuple[int, int]:
    """As how many layers the embedding and the output count."""
    degrees = module.config["parallelism"]
    return (
        degrees["pipeline_parallel_first_stage_less_layers"],
        degrees["pipeline_parallel_last_stage_less_layers"],
    )


def _weight(module: Module) -> int:
    return int(module.model_args["n_layers"]) + sum(_ends(module))


def _check_number(module: Module, key: str, found: str) -> list[Problem]:
    """A number of stages, which ``found`` tells, that the ranks or the schedule can't share."""
    degrees, stages = module.config["parallelism"], stage_count(module)
    ranks, schedule = degrees["pipeline_parallel_degree"], degrees["pipeline_parallel_schedule"]
    if stages % ranks:
        return [parallel_problem(module, key, found, f"a multiple of {ranks} stages")]
    wanted, own = _stages_a_rank(schedule), stages // ranks
    if {"one": own == 1, "two": own == 2, "two or more": own >= 2}[wanted]:
        return []
    return [parallel_problem(module, key, f"{found}, {own} a rank", f"{wanted} a rank, which {schedule} has")]


def _check_parts(module: Module, parts: Sequence[Sequence[str]]) -> list[Problem]:
    """Names that torchtitan would pass over, and modules that it would drop or train twice."""
    if family_of(module.config["model"]["name"]).block is None:
        return []
    last = module.model_args["n_layers"] - 1
    whole = [EMBEDDINGS, *(f"layers.{layer}" for layer in range(last + 1)), "norm", HEAD]
    place = {name: number for number, name in enumerate(whole)}
    # The order in a part means nothing to torchtitan.
    found = [name for part in parts for name in sorted(part, key=lambda name: place.get(name, -1))]
    if found == whole:
        return []
    if wrong := [name for name in found if name not in place]:
        message = f"found {wrong[0]!r}, which the model lacks"
    elif wrong := [name for name in whole if name not in found]:
        message = f"no stage has {wrong[0]}"
    elif wrong := [name for name in whole if found.count(name) > 1]:
        message = f"found {wrong[0]} twice"
    else:
        message = "the stages aren't in the model's order"
    expected = f"{EMBEDDINGS}, layers.0 to layers.{last}, norm and {HEAD}, each in one stage and in this order"
    return [parallel_problem(module, PARTS, message, expected)]


def _stages_a_rank(schedule: str) -> str:
    if schedule.lower() in ONE_STAGE:
        return "one"
    return "two" if schedule.lower() in TWO_STAGES else "two or more"


def parallel_problem(module: Module, key: str, message: str, expected: str, hint: str = "") -> Problem:
    return module.problem(f"parallelism.{key}", message, expected, hint)
