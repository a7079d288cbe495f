"""torchtitan's deepseek_v3 for transformers: multi-head latent attention, YaRN and a mixture of experts.

transformers' class computes some things in one way alone: sigmoid scores, a bias that corrects the choice of experts,
shared experts, and 1e-6 in the norms of the latents. Other models are refused by
:func:`titanflow.architectures.families.registry.export_refusal`.
"""

from __future__ import annotations

from typing import Any

from titan.models.huggingface import HuggingFaceModel
from titanflow.architectures.families.registry import ARCHITECTURES


def deepseek_v3_config(args: Any, common: dict[str, Any]) -> Any:
    from transformers import DeepseekV3Config

    experts = args.moe_args
    return DeepseekV3Config(
        **common,
        intermediate_size=args.inter_dim,
        tie_word_embeddings=False,
        rope_parameters=_rope(args),
        # torchtitan rotates neighbouring pairs, and its adapter leaves the weights as they are.
        rope_interleave=True,
        q_lora_rank=args.q_lora_rank or None,
        kv_lora_rank=args.kv_lora_rank,
        qk_nope_head_dim=args.qk_nope_head_dim,
        qk_rope_head_dim=args.qk_rope_head_dim,
        v_head_dim=args.v_head_dim,
        first_k_dense_replace=args.n_dense_layers,
        moe_intermediate_size=args.moe_inter_dim,
        n_routed_experts=experts.num_experts,
        n_shared_experts=experts.num_shared_experts,
        num_experts_per_tok=experts.top_k,
        n_group=experts.num_expert_groups or 1,
        topk_group=experts.num_limited_groups if experts.num_expert_groups else 1,
        norm_topk_prob=experts.route_norm,
        routed_scaling_factor=float(experts.route_scale),
        num_mtp_layers=0,
        # transformers doesn't read these two, but vLLM and DeepSeek's own code do.
        scoring_func="sigmoid",
        topk_method="noaux_tc",
    )


def _rope(args: Any) -> dict[str, Any]:
    """YaRN stretches RoPE if ``rope_factor`` exceeds 1 (:mod:`titan.models.deepseek_v3.adapter`).

    torchtitan multiplies the softmax's scale by the square of ``0.1 · mscale · ln(factor) + 1``; transformers does so
    with ``mscale_all_dim``. Cosines and sines are unchanged if ``mscale`` is the same.
    """
    theta = {"rope_theta": float(args.rope_theta)}
    if args.rope_factor <= 1:
        return {"rope_type": "default", **theta}
    return {
        "rope_type": "yarn",
        **theta,
        "factor": float(args.rope_factor),
        "beta_fast": float(args.beta_fast),
        "beta_slow": float(args.beta_slow),
        "mscale": float(args.mscale),
        "mscale_all_dim": float(args.mscale),
        "attention_factor": 1.0,
        "original_max_position_embeddings": args.original_seq_len,
    }


def hugging_face_model(args: Any) -> HuggingFaceModel:
    return HuggingFaceModel(ARCHITECTURES["deepseek_v3"], deepseek_v3_config)
