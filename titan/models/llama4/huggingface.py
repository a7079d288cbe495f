"""torchtitan's llama4 for transformers: text alone, attention over whole rows, a mixture in each so many layers.

What transformers' class has no argument for is refused by
:func:`titanflow.architectures.families.registry.export_refusal`: a bias that evens out experts, and scores that aren't
a sigmoid's, put before the experts.
"""

from __future__ import annotations

from typing import Any

from titan.models.huggingface import HuggingFaceModel
from titanflow.architectures.blocks import routed_width, swiglu_width
from titanflow.architectures.families.registry import ARCHITECTURES


def llama4_config(args: Any, common: dict[str, Any]) -> Any:
    """A ``Llama4TextConfig`` of torchtitan's arguments; see :data:`titan.models.huggingface.MakeConfig`."""
    from dataclasses import asdict

    from transformers import Llama4TextConfig

    layers, every = range(args.n_layers), args.every_n_layers_nope
    return Llama4TextConfig(
        **common,
        head_dim=args.dim // args.n_heads,
        intermediate_size=routed_width(asdict(args)),
        intermediate_size_mlp=swiglu_width(args.dim, args.multiple_of, args.ffn_dim_multiplier),
        num_local_experts=args.moe_args.num_experts,
        num_experts_per_tok=args.moe_args.top_k,
        moe_layers=[layer for layer in layers if (layer + 1) % args.interleave_moe_layer_step == 0],
        # 0 is a layer without RoPE.
        no_rope_layers=[int(not every or layer % every != 0) for layer in layers],
        # With sdpa torchtitan's layers see the whole row, and it has neither of the other two.
        layer_types=["full_attention" for _ in layers],
        attention_chunk_size=None,
        use_qk_norm=False,
        attn_temperature_tuning=False,
        tie_word_embeddings=False,
        rope_parameters=_rope(args),
    )


def _rope(args: Any) -> dict[str, Any]:
    theta, scaling = {"rope_theta": float(args.rope_theta)}, args.rope_scaling_args
    if scaling is None or scaling.scaling_factor == 1:
        return {"rope_type": "default", **theta}
    return {
        "rope_type": "llama3",
        **theta,
        "factor": float(scaling.scaling_factor),
        "low_freq_factor": float(scaling.low_freq_factor),
        "high_freq_factor": float(scaling.high_freq_factor),
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
    }


def hugging_face_model(args: Any) -> HuggingFaceModel:
    """Llama4's class."""
    return HuggingFaceModel(ARCHITECTURES["llama4"], llama4_config)
