"""Mixture-of-Depths on Qwen 2.5."""

from __future__ import annotations

from titanflow.architectures.blocks import Args, Shapes, causal_router, linear, under
from titanflow.architectures.families.qwen2 import qwen2_block
from titanflow.architectures.family import Family


def is_routed(args: Args, layer: int) -> bool:
    return bool((layer + 1) % args["route_every"] == 0)


def mod_block(args: Args, layer: int) -> Shapes:
    if not is_routed(args, layer):
        return qwen2_block(args, layer)
    dim = args["dim"]
    own = {
        **under("predictor.down", linear(dim // 2, dim, bias=True)),
        **under("predictor.score", linear(1, dim // 2, bias=True)),
    }
    return {**qwen2_block(args, layer), "router.weight": (1, dim), **causal_router(args, own)}


FAMILY = Family(
    name="mod",
    block=mod_block,
    module="titan.models.mod",
    architecture="ModForCausalLM",
    words="qwen2",
    dense="qwen2",
    groups={"router": ("router", "predictor", "causal_router")},
    is_routed=is_routed,
    router_width=1,
    parts_width=True,
)
