"""Parameters and floating point operations of a model, counted as torchtitan counts them, without torch.

Each weight of a matrix product takes six operations a token (two forward, four backward). Attention takes six times
heads, the widths of key and value, and keys, without regard to causality (PaLM, arXiv:2204.02311, appendix B;
``torchtitan/models/utils.py``). Only the experts that a token is routed to count, and of a routed layer (mod, dtf,
tdtf) only the tokens that it computes (``titan/models/flops.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from titanflow.architectures.blocks import EMBEDDINGS, Args, Shapes
from titanflow.architectures.families.registry import FAMILIES, PARAMETER_GROUPS
from titanflow.config.checks.training.muon import ADAPTER, trained_weights
from titanflow.config.keys.training import Lora
from titanflow.planning.forecast.matrices import NO_MATRICES, Matrices

FORWARD_AND_BACKWARD = 6


@dataclass(frozen=True)
class Counts:
    """A model's numbers of parameters and operations.

    ``parameters`` counts a tied weight once; ``trained`` are those with a gradient, and ``whole`` those of them in
    modules that LoRA trains whole. ``flops_per_token`` are forward and backward, as if all were trained. ``matrices``
    are those that Muon would step.
    """

    parameters: int
    trained: int
    flops_per_token: int
    whole: int = 0
    matrices: Matrices = NO_MATRICES


def count(family: str, args: Args, shapes: Shapes, seq_len: int, lora: Lora) -> Counts:
    """Counts a model. A token attends to ``seq_len`` keys; with a LoRA rank of 0 all parameters are trained."""
    total = sum(prod(shape) for shape in shapes.values())
    trained = trained_weights(shapes, lora, bool(args.get("enable_weight_tying")))
    whole = sum(prod(shape) for name, shape in trained.items() if lora.rank and not name.endswith(ADAPTER))
    is_sparse = family in PARAMETER_GROUPS
    per_token = _routed_flops(family, args, shapes, seq_len) if is_sparse else _flops(args, shapes, seq_len)
    return Counts(total, sum(map(prod, trained.values())), per_token, whole, Matrices.of(trained))


def head_widths(args: Args) -> int:
    if "v_head_dim" in args:
        return int(args["qk_nope_head_dim"] + args["qk_rope_head_dim"] + args["v_head_dim"])
    return int(2 * (args.get("head_dim") or args["dim"] // args["n_heads"]))


def _attention(args: Args, keys: float) -> int:
    return int(FORWARD_AND_BACKWARD * args["n_heads"] * head_widths(args) * keys)


def _flops(args: Args, shapes: Shapes, seq_len: int) -> int:
    experts = sum(prod(shape) for name, shape in shapes.items() if ".moe.experts." in name)
    embedding = prod(shapes[f"{EMBEDDINGS}.weight"])
    # A tied weight is multiplied once, at the output; its lookup is no product.
    looked_up = 0 if args.get("enable_weight_tying") else embedding
    others = sum(prod(shape) for shape in shapes.values()) - experts - looked_up
    moe = args.get("moe_args") or {"top_k": 1, "num_experts": 1}
    active = experts * moe["top_k"] // moe["num_experts"]
    return FORWARD_AND_BACKWARD * (others + active) + args["n_layers"] * _attention(args, seq_len)


def _routed_flops(family: str, args: Args, shapes: Shapes, seq_len: int) -> int:
    """A routed layer computes its share of the tokens, over its share of the keys; its router sees all tokens."""
    routed, total = FAMILIES[family], FORWARD_AND_BACKWARD * prod(shapes[f"{EMBEDDINGS}.weight"])
    for layer in range(args["n_layers"]):
        own = {name: prod(shape) for name, shape in shapes.items() if name.startswith(f"layers.{layer}.")}
        block = sum(size for name, size in own.items() if ".attention." in name or ".feed_forward." in name)
        routes = routed.is_routed(args, layer)
        share = args["capacity"] if routes else 1.0
        dense = FORWARD_AND_BACKWARD * block
        # A teacher computes every token once more, forward alone.
        teacher = (dense + _attention(args, seq_len)) / 3 if routed.has_teacher and routes else 0
        shared = share * (dense + _attention(args, share * seq_len))
        total += int(shared + teacher + FORWARD_AND_BACKWARD * (sum(own.values()) - block))
    return total
