"""DeepSeek V3: multi-head latent attention and experts."""

from __future__ import annotations

from collections.abc import Iterator

from titanflow.architectures.blocks import Args, Shapes, experts, norms, swiglu, under
from titanflow.architectures.family import Family


def deepseek_v3_block(args: Args, layer: int) -> Shapes:
    """Multi-head latent attention; the first ``n_dense_layers`` have no experts."""
    dim, heads, values = args["dim"], args["n_heads"], args["v_head_dim"]
    queries, latent = args["q_lora_rank"], args["kv_lora_rank"]
    plain, rotary = args["qk_nope_head_dim"], args["qk_rope_head_dim"]
    wide = heads * (plain + rotary)
    query_weights: Shapes = (
        {"wq_a.weight": (queries, dim), "q_norm.weight": (queries,), "wq_b.weight": (wide, queries)}
        if queries
        else {"wq.weight": (wide, dim)}
    )
    attention: Shapes = {
        **query_weights,
        "wkv_a.weight": (latent + rotary, dim),
        "kv_norm.weight": (latent,),
        "wkv_b.weight": (heads * (plain + values), latent),
        "wo.weight": (dim, heads * values),
    }
    is_dense = layer < args["n_dense_layers"]
    return {
        **under("attention", attention),
        **(under("feed_forward", swiglu(dim, args["inter_dim"])) if is_dense else experts(args, args["moe_inter_dim"])),
        **norms(args),
    }


def export_faults(args: Args) -> Iterator[str]:
    """Parts that transformers' class always has."""
    moe = args["moe_args"]
    if moe.get("load_balance_coeff", 1) is None:
        yield "moe_args.load_balance_coeff is None, expected a number: it has a bias that evens out experts"
    if moe.get("num_shared_experts", 1) < 1:
        yield "moe_args.num_shared_experts is 0, expected 1 or more: it has at least one"


FAMILY = Family(
    name="deepseek_v3",
    joins_experts=True,
    block=deepseek_v3_block,
    architecture="DeepseekV3ForCausalLM",
    needed={
        "norm_eps": (1e-6, "the norms of its latents always have that"),
        "moe_args.score_func": ("sigmoid", "it scores experts by nothing else"),
        "moe_args.score_before_experts": (False, "it weighs what comes out of an expert, not what goes in"),
        "moe_args.gate_bias": (False, "its router has no bias"),
    },
    export_faults=export_faults,
)
