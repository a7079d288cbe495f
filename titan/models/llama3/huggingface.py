"""torchtitan's llama3 for transformers."""

from __future__ import annotations

from typing import Any

from titan.models.huggingface import HuggingFaceModel
from titanflow.architectures.blocks import swiglu_width
from titanflow.architectures.families.registry import ARCHITECTURES


def make_config(args: Any, common: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        **common,
        head_dim=args.dim // args.n_heads,
        intermediate_size=swiglu_width(args.dim, args.multiple_of, args.ffn_dim_multiplier),
        mlp_bias=False,
        tie_word_embeddings=False,
        rope_parameters=llama_rope(args),
    )


def llama_rope(args: Any) -> dict[str, Any]:
    """torchtitan scales every llama3's RoPE, by 8 unless told otherwise, and at short lengths too.

    A factor of 1 changes nothing; it is written as no scaling, so that loading the model brings no warning.
    """
    scaling = args.rope_scaling_args
    if scaling is None or scaling.scaling_factor == 1:
        return {"rope_type": "default", "rope_theta": float(args.rope_theta)}
    return {
        "rope_type": "llama3",
        "rope_theta": float(args.rope_theta),
        "factor": float(scaling.scaling_factor),
        "low_freq_factor": float(scaling.low_freq_factor),
        "high_freq_factor": float(scaling.high_freq_factor),
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
    }


def hugging_face_model(args: Any) -> HuggingFaceModel:
    return HuggingFaceModel(ARCHITECTURES["llama3"], make_config)
