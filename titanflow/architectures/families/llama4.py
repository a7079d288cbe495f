"""llama 4, text alone."""

from __future__ import annotations

from titanflow.architectures.blocks import Args, Shapes, attention, experts, norms, routed_width
from titanflow.architectures.families.llama3 import llama3_block
from titanflow.architectures.family import Family


def llama4_block(args: Args, layer: int) -> Shapes:
    """Only every ``interleave_moe_layer_step``-th layer has experts."""
    if (layer + 1) % args["interleave_moe_layer_step"]:
        return llama3_block(args, layer)
    return {**attention(args, args["dim"] // args["n_heads"]), **experts(args, routed_width(args)), **norms(args)}


FAMILY = Family(
    name="llama4",
    own_router=True,
    block=llama4_block,
    architecture="Llama4ForCausalLM",
    needed={
        "attn_type": ("sdpa", "its layers see whole rows here, and torchtitan's flex cuts some into blocks"),
        "moe_args.score_func": ("sigmoid", "it scores experts by nothing else"),
        "moe_args.score_before_experts": (True, "it weighs what goes into an expert, not what comes out"),
        "moe_args.gate_bias": (False, "its router has no bias"),
        "moe_args.num_shared_experts": (1, "it has one, as wide as an expert"),
        "moe_args.num_expert_groups": (None, "it chooses among all experts"),
        "moe_args.route_norm": (False, "it norms no scores"),
        "moe_args.route_scale": (1.0, "it scales no scores"),
        "moe_args.load_balance_coeff": (None, "it has no bias that evens out experts"),
    },
    own_masks="its layers take one of two masks, in which documents end at each end-of-sequence token",
)
