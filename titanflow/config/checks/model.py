"""Refuses a model's arguments that contradict each other: each has its right type, but no model can be built."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeGuard

from titanflow.architectures.families.registry import PARAMETER_GROUPS, family_of
from titanflow.architectures.family import Fault
from titanflow.common.errors import Problem
from titanflow.config.mixture import packs_rows
from titanflow.config.module import Module

COUNTS = (
    *("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size", "max_seq_len"),
    *("route_every", "moving_average_window"),
)
"""Arguments that count something."""
ABOVE_ZERO = ("prior_factor", "beta_start", "beta_end")
"""A routed family's arguments that have no effect at 0."""
FROM_ZERO = ("beta_warmup_steps", *(f"{loss}_loss_weight" for loss in ("aux", "z", "causal", "prior", "tpn")))
"""Its arguments that may be 0; a loss with a negative weight would be driven up."""
MASKED = "sdpa"
"""The only kind of attention whose kernel has dropout."""
Found = Iterator[Fault]


def check_model(module: Module) -> list[Problem]:
    """Contradictions in the arguments of a training module's model; none where these aren't known.

    A problem names the first argument that the module itself sets, rather than one of the flavor's. Mistakes that an
    sft inherits are reported for its base.
    """
    problems = []
    for keys, message, expected in argument_faults(module.config["model"]["name"], module.model_args):
        written = [key for key in keys if _is_written(module, key)]
        if written or module.base is None:
            problems.append(module.problem(f"model.{(*written, *keys)[0]}", message, expected))
    return problems + _check_recomputed(module)


def argument_faults(name: str, args: dict[str, Any]) -> list[Fault]:
    """Contradictions in the arguments of a model of the family ``name``."""
    return list(_sizes(args)) or [
        *_heads(name, args),
        *_rope(args),
        *_dropout(args),
        *_routing(name, args),
        *_experts(args),
    ]


def _check_recomputed(module: Module) -> list[Problem]:
    """Recomputed activations must have the same dropout: torch keeps the random state unless told not to."""
    recomputing, lora = module.config["activation_checkpoint"], module.config["lora"]
    drops = module.model_args.get("dropout") or (lora["rank"] and lora["dropout"])
    if not drops or recomputing["mode"] == "none" or recomputing["preserve_rng_state"]:
        return []
    message = "found false, with dropout: recomputation would drop other values and make the gradient wrong"
    return [module.problem("activation_checkpoint.preserve_rng_state", message, "true, or mode: none")]


def _is_written(module: Module, key: str) -> bool:
    flavor = "{name}/{flavor} of ".format(**module.config["model"])
    return not module.origins.get(f"model.{key}", flavor).startswith(flavor)


def _sizes(args: dict[str, Any]) -> Found:
    for key in COUNTS:
        if _is_number(args.get(key)) and args[key] < 1:
            yield (key,), f"found {args[key]}", "1 or more"


def _heads(name: str, args: dict[str, Any]) -> Found:
    heads, shared, dim = (args.get(key) for key in ("n_heads", "n_kv_heads", "dim"))
    if heads and shared and heads % shared:
        message = f"n_heads is {heads} and n_kv_heads {shared}: each key head serves as many query heads"
        yield ("n_kv_heads", "n_heads"), message, f"n_kv_heads a divisor of {heads}"
    if heads and dim and family_of(name).parts_width and (dim % heads or dim // heads % 2):
        message = f"dim is {dim} and n_heads {heads}: a head is {dim / heads:g} wide, and RoPE turns pairs in it"
        yield ("n_heads", "dim"), message, "dim an even multiple of n_heads"


def _rope(args: dict[str, Any]) -> Found:
    stretch = args.get("rope_scaling_args") or {}
    values = {"rope_theta": args.get("rope_theta"), "rope_scaling_args.scaling_factor": stretch.get("scaling_factor")}
    for key, value in {**values, "rope_factor": args.get("rope_factor")}.items():
        if _is_number(value) and not 0 < value < math.inf:
            yield (key,), f"found {value}: no position could be told from another", "a number above 0"
    yield from _stretched(args, stretch)


def _stretched(args: dict[str, Any], llama: dict[str, Any]) -> Found:
    """What stretches positions, llama 3.1's way and YaRN's: both divide by these numbers or take their logarithm."""
    head = "rope_scaling_args."
    given = {**args, **{f"{head}{key}": value for key, value in llama.items()}}
    for key in (f"{head}scaling_factor", "rope_factor"):
        if _is_number(given.get(key)) and 0 < given[key] < 1:
            yield (key,), f"found {given[key]}: it would leave fewer positions", "1 or more; 1 stretches nothing"
    numbers = (f"{head}low_freq_factor", f"{head}high_freq_factor", "beta_slow", "beta_fast")
    for key in (*numbers, f"{head}original_max_position_embeddings", "original_seq_len"):
        if _is_number(given.get(key)) and not 0 < given[key] < math.inf:
            yield (key,), f"found {given[key]}", "a number above 0"
    for low, high in (numbers[:2], numbers[2:]):
        if all(_is_number(given.get(key)) for key in (low, high)) and given[low] > given[high] > 0:
            yield (high, low), f"{low} is {given[low]} and {high} {given[high]}", f"{high} above {low}"


def _dropout(args: dict[str, Any]) -> Found:
    dropout, attention = args.get("dropout"), args.get("attn_type")
    if not _is_number(dropout):
        return
    if not 0 <= dropout < 1:
        yield ("dropout",), f"found {dropout}", "at least 0 and below 1"
    elif dropout and attention != MASKED:
        message = f"dropout is {dropout} and attn_type {attention!r}, whose kernel drops nothing"
        yield ("dropout", "attn_type"), message, f"dropout 0, or attn_type {MASKED}"


def _routing(name: str, args: dict[str, Any]) -> Found:
    if name not in PARAMETER_GROUPS:
        return
    layers, every = args["n_layers"], args.get("route_every", 2)
    if not 0 < args["capacity"] <= 1:
        yield ("capacity",), f"found {args['capacity']}", "above 0 and at most 1"
    if every > layers:
        expected = f"route_every at most {layers}" if "route_every" in args else f"{every} layers or more"
        yield ("route_every", "n_layers"), f"every {every} layers one is routed, and there are {layers}", expected
    yield from family_of(name).faults(args)
    for key in ABOVE_ZERO:
        if key in args and not 0 < args[key] < math.inf:
            yield (key,), f"found {args[key]}", "a number above 0"
    for key in FROM_ZERO:
        if key in args and not 0 <= args[key] < math.inf:
            yield (key,), f"found {args[key]}", "0 or a number above"


def warn_of_schedule(module: Module) -> list[str]:
    """Warns of warm-ups that are longer than the stage, and of a decay that doesn't fit behind one."""
    steps, schedule = module.config["training"]["steps"], module.config["lr_scheduler"]
    total, share = schedule["total_steps"] or steps, schedule["decay_ratio"] or 0
    warmup, beta = schedule["warmup_steps"], module.model_args.get("beta_warmup_steps", 0)
    found, key = [], "lr_scheduler.warmup_steps"
    if module.is_written(key) and warmup > total:
        what = f"{key} ({module.origins[key]}) is {warmup}"
        found.append((what, "the learning rate rises to the end, and is optimizer.lr in the last step alone"))
    elif 0 < total - warmup < round(total * share):
        what = f"lr_scheduler.decay_ratio is {share}, lr_scheduler.warmup_steps {warmup}"
        found.append((what, f"the decay takes the {total - warmup} steps that the warm-up leaves"))
    if beta >= steps:
        found.append((f"model.beta_warmup_steps is {beta}", "β stays at model.beta_start all the while"))
    return [f"{module.name}.{what} and training.steps {steps}: {effect}" for what, effect in found]


def warn_of_padding(module: Module) -> list[str]:
    """Warns of padded rows for a routed model: it computes the same share of a row's tokens, padding or not."""
    is_routed = module.config["model"]["name"] in PARAMETER_GROUPS
    if module.kind != "sft" or not is_routed or packs_rows(module.config["data"]):
        return []
    return [
        f"{module.name}.data.packing is null: padding competes with a row's tokens for what a routed layer computes "
        "(model.capacity), and is counted in its statistics; best_fit leaves little of it"
    ]


def _experts(args: dict[str, Any]) -> Found:
    """Settings that torchtitan's router refuses in the first step (``models/moe/moe.py``)."""
    experts = args.get("moe_args") or {}
    count, chosen, groups = (experts.get(key) for key in ("num_experts", "top_k", "num_expert_groups"))
    limited, score = experts.get("num_limited_groups"), experts.get("score_func", "softmax")
    if score not in ("softmax", "sigmoid"):
        yield ("moe_args.score_func",), f"found {score!r}", "softmax or sigmoid"
    if not count:
        return
    keys, of = ("moe_args.num_experts",), f"and the model has {count} experts"
    if chosen is not None and not 1 <= chosen <= count:
        yield ("moe_args.top_k", *keys), f"found {chosen}, {of}", f"1 to {count}"
    if groups is None:
        return
    if groups < 1 or count % groups or count // groups < 2:
        yield ("moe_args.num_expert_groups", *keys), f"found {groups}, {of}", f"a divisor of {count}, two in each group"
    elif limited is None or not 1 <= limited <= groups:
        found = f"{groups} groups of experts, and num_limited_groups is {limited}"
        yield ("moe_args.num_limited_groups", "moe_args.num_expert_groups"), found, f"num_limited_groups: 1 to {groups}"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


OF_TRAINING = (check_model,)
