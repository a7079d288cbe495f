"""torchtitan's llama4 for transformers: text alone, attention over whole rows, experts in every n-th layer.

Models for which transformers' class lacks an argument are refused by
:func:`titanflow.architectures.families.registry.export_refusal`: those with a bias that balances experts, or with
scores that aren't a sigmoid's, applied before the experts.
"""

from __future__ import annotations

from typing import Any

from titan.models.huggingface import HuggingFaceModel
from titan.models.llama3.huggingface import llama_rope
from titanflow.architectures.blocks import routed_width, swiglu_width
from titanflow.architectures.families.registry import ARCHITECTURES


def llama4_config(args: Any, common: dict[str, Any]) -> Any:
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
        # With sdpa torchtitan's layers see the whole row; it has no norm of queries and keys, and no tuned temperature.
        layer_types=["full_attention" for _ in layers],
        attention_chunk_size=None,
        use_qk_norm=False,
        attn_temperature_tuning=False,
        tie_word_embeddings=False,
        rope_parameters=llama_rope(args),
    )


def hugging_face_model(args: Any) -> HuggingFaceModel:
    return HuggingFaceModel(ARCHITECTURES["llama4"], llama4_config)
