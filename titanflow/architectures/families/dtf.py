"""Decision and dynamic layers in turn (DTF) on Qwen 2.5."""

from __future__ import annotations

from collections.abc import Iterator

from titanflow.architectures.blocks import Args, Shapes, causal_router, foresight, under
from titanflow.architectures.families.qwen2 import qwen2_block
from titanflow.architectures.family import Family, Fault


def is_routed(args: Args, layer: int) -> bool:
    return layer % 2 == 1


def dtf_block(args: Args, layer: int) -> Shapes:
    """A decision layer, or the dynamic layer after it."""
    if not is_routed(args, layer):
        return {**qwen2_block(args, layer), "prior_norm.weight": (args["dim"],), **under("prior", foresight(args))}
    scoring = {f"router.{name}": (1,) for name in ("o_ce", "m_cu", "beta_ce", "beta_cu")}
    own: Shapes = {f"router.{name}": (1,) for name in ("slope", "threshold")}
    return {**qwen2_block(args, layer), **scoring, **causal_router(args, own)}


def faults(args: Args) -> Iterator[Fault]:
    if (layers := args["n_layers"]) % 2:
        yield ("n_layers",), f"found {layers}: dtf's layers come in pairs", "an even number"


FAMILY = Family(
    name="dtf",
    block=dtf_block,
    module="titan.models.dtf",
    architecture="DtfForCausalLM",
    words="qwen2",
    dense="qwen2",
    groups={"prior": ("prior", "prior_norm"), "router": ("router", "causal_router")},
    is_routed=is_routed,
    faults=faults,
    router_width=1,
    decision_width=5,
    parts_width=True,
)
