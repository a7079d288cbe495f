"""gpt-oss."""

from __future__ import annotations

from titanflow.architectures.blocks import Args, Shapes, attention, experts, norms
from titanflow.architectures.family import Family


def gpt_oss_block(args: Args, layer: int) -> Shapes:
    """Biases everywhere, a sink for each head, and two matrices for each expert."""
    dim, width, moe = args["dim"], args["moe_inter_dim"], args["moe_args"]
    count = moe["num_experts"]
    others = {name: shape for name, shape in experts(args, width).items() if not name.startswith("moe.experts.")}
    return {
        **attention(args, args["head_dim"], bias=True, out_bias=True),
        "attention.sinks": (args["n_heads"],),
        "moe.experts.mlp1_weight": (count, 2 * width, dim),
        "moe.experts.mlp1_bias": (count, 2 * width),
        "moe.experts.mlp2_weight": (count, dim, width),
        "moe.experts.mlp2_bias": (count, dim),
        **others,
        **norms(args),
    }


FAMILY = Family(
    name="gpt_oss",
    block=gpt_oss_block,
    no_export="its layers take FlexAttention's masks alone, which torch compiles for no CPU, so that no export "
    "could be compared with transformers",
    own_masks="documents end at each end-of-sequence token in its masks, and it takes no positions",
    flex_only=True,
)
