"""Teacher and student layers (TDTF) on Qwen 2.5."""

from __future__ import annotations

from titanflow.architectures.blocks import Args, Shapes, foresight, linear, under
from titanflow.architectures.families.dtf import is_routed
from titanflow.architectures.families.qwen2 import qwen2_block
from titanflow.architectures.family import Family


def tdtf_block(args: Args, layer: int) -> Shapes:
    if not is_routed(args, layer):
        return qwen2_block(args, layer)
    dim = args["dim"]
    return {
        **qwen2_block(args, layer),
        "router.o_ce": (1,),
        "router.m_cu": (1,),
        "transition_norm.weight": (dim,),
        **under("transition", foresight(args)),
        "student_norm.weight": (dim,),
        **under("student", linear(1, 2 * dim, bias=True)),
    }


FAMILY = Family(
    name="tdtf",
    block=tdtf_block,
    module="titan.models.tdtf",
    architecture="TdtfForCausalLM",
    words="qwen2",
    dense="qwen2",
    groups={"prior": ("transition", "transition_norm"), "router": ("router", "student", "student_norm")},
    is_routed=is_routed,
    router_width=6,
    has_teacher=True,
    parts_width=True,
    annealed=("beta_start", "beta_end"),
)
