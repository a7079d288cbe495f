"""Qwen 3, dense and with experts."""

from __future__ import annotations

from typing import Any

from titanflow.architectures.blocks import Args, Shapes, attention, experts, norms, swiglu, under
from titanflow.architectures.config_reader import ConfigReader, qwen
from titanflow.architectures.family import Family


def qwen3_block(args: Args, layer: int) -> Shapes:
    head_dim = args["head_dim"]
    of_heads = {f"attention.{name}_norm.weight": (head_dim,) for name in "qk"} if args["qk_norm"] else {}
    if args["moe_enabled"]:
        inner = experts(args, args["moe_inter_dim"])
    else:
        inner = under("feed_forward", swiglu(args["dim"], args["hidden_dim"]))
    return {**attention(args, head_dim), **of_heads, **inner, **norms(args)}


def read_config(reader: ConfigReader) -> dict[str, Any]:
    return {
        **qwen(reader, "qwen3"),
        "head_dim": reader.whole("head_dim", 128),
        "qk_norm": True,
        "moe_enabled": False,
    }


FAMILY = Family(
    name="qwen3",
    joins_experts=True,
    block=qwen3_block,
    architecture="Qwen3ForCausalLM",
    needed={
        "qk_norm": (True, "it always normalises queries and keys"),
        "moe_args.score_func": ("softmax", "it scores experts by nothing else"),
        "moe_args.score_before_experts": (False, "it weighs what comes out of an expert, not what goes in"),
        "moe_args.gate_bias": (False, "its router has no bias"),
        "moe_args.num_shared_experts": (0, "it has no shared experts"),
        "moe_args.num_expert_groups": (None, "it chooses among all experts"),
        "moe_args.route_scale": (1.0, "it scales no scores"),
        "moe_args.load_balance_coeff": (None, "it has no bias that evens out experts; torchtitan's qwen3 trains none"),
    },
    read_config=read_config,
    llama_cpp="qwen3",
)
