"""torchtitan's llama3 for transformers."""

from __future__ import annotations

from typing import Any

from titan.models.huggingface import HuggingFaceModel
from titanflow.architectures.families.registry import ARCHITECTURES


def llama_intermediate_size(args: Any) -> int:
    """The width of the hidden layer of torchtitan's llama3 ``FeedForward``, rounded as it rounds."""
    width = int(2 * (4 * args.dim) / 3)
    if args.ffn_dim_multiplier is not None:
        width = int(args.ffn_dim_multiplier * width)
    return int(args.multiple_of * ((width + args.multiple_of - 1) // args.multiple_of))


def make_config(args: Any, common: dict[str, Any]) -> Any:
    """A ``LlamaConfig``; see :data:`titan.models.huggingface.MakeConfig`."""
    from transformers import LlamaConfig

    return LlamaConfig(
        **common,
        head_dim=args.dim // args.n_heads,
        intermediate_size=llama_intermediate_size(args),
        mlp_bias=False,
        tie_word_embeddings=False,
        rope_parameters=_llama_rope(args),
    )


def _llama_rope(args: Any) -> dict[str, Any]:
    """torchtitan scales every llama3's RoPE, by 8 unless told otherwise, and at short lengths too.

    A factor of 1 changes nothing; it is written as no scaling, so that loading the model brings no warning.
    """
    scaling = args.rope_scaling_args
    if scaling.scaling_factor == 1:
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
    """Llama's class."""
    return HuggingFaceModel(ARCHITECTURES["llama3"], make_config)
