"""torchtitan's qwen3 for transformers, dense and with experts."""

from __future__ import annotations

from typing import Any

from titan.models.huggingface import HuggingFaceModel
from titanflow.architectures.families.registry import ARCHITECTURES


def _qwen3_config(args: Any, common: dict[str, Any]) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**common, **_qwen3_arguments(args))


def _qwen3_moe_config(args: Any, common: dict[str, Any]) -> Any:
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(
        **common,
        **_qwen3_arguments(args),
        # Every layer of torchtitan's is a mixture of experts.
        decoder_sparse_step=1,
        mlp_only_layers=[],
        moe_intermediate_size=args.moe_inter_dim,
        num_experts=args.moe_args.num_experts,
        num_experts_per_tok=args.moe_args.top_k,
        norm_topk_prob=args.moe_args.route_norm,
    )


def _qwen3_arguments(args: Any) -> dict[str, Any]:
    return {
        "head_dim": args.head_dim,
        "intermediate_size": args.hidden_dim,
        "use_sliding_window": False,
        "tie_word_embeddings": args.enable_weight_tying,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(args.rope_theta)},
    }


def hugging_face_model(args: Any) -> HuggingFaceModel:
    if args.moe_enabled:
        return HuggingFaceModel("Qwen3MoeForCausalLM", _qwen3_moe_config)
    return HuggingFaceModel(ARCHITECTURES["qwen3"], _qwen3_config)
