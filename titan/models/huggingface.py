"""How each model family is written for transformers: the class that computes the same, and its config.

A family of one's own says so by :func:`register_hugging_face_model`, as it registers its ``TrainSpec``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from titan.models.deepseek_v3.huggingface import deepseek_v3_config
from titan.models.llama4.huggingface import llama4_config
from titanflow.architectures.families import ARCHITECTURES, export_refusal

MakeConfig = Callable[[Any, dict[str, Any]], Any]
"""From a family's ``ModelArgs``, and what all configs have in common, to a transformers config."""


@dataclass(frozen=True)
class HuggingFaceModel:
    """The transformers side of a family.

    ``architecture`` is the class's name, as in ``config.json``, and ``module`` where it is imported from: a module
    other than transformers goes into the export beside the weights, for ``trust_remote_code``.
    """

    architecture: str
    make_config: MakeConfig
    module: str = "transformers"

    @property
    def has_code(self) -> bool:
        """Whether an export comes with a modelling file of its own."""
        return self.module != "transformers"

    def model_class(self) -> Any:
        """The class, imported when it is asked for."""
        return getattr(importlib.import_module(self.module), self.architecture)


_registered: dict[str, HuggingFaceModel] = {}


def register_hugging_face_model(family: str, model: HuggingFaceModel) -> None:
    """Makes a family exportable.

    Raises:
        ValueError: the family has a model for transformers already.
    """
    if family in BUILT_IN or family in _registered:
        raise ValueError(f"{family} is registered already")
    _registered[family] = model


def hugging_face_model(family: str, model_args: Any) -> HuggingFaceModel:
    """What :func:`register_hugging_face_model` was given, or what torchtitan's own family is with these arguments.

    Raises:
        KeyError: the family has no export.
    """
    if family == "qwen3" and model_args.moe_enabled:
        return QWEN3_MOE
    return _registered.get(family) or BUILT_IN[family]


def refusal(family: str, model_args: Mapping[str, Any] | None = None) -> str:
    """Why a model can't be exported; see :func:`titanflow.architectures.families.export_refusal`."""
    is_own = family in _registered and family not in ARCHITECTURES
    return "" if is_own else export_refusal(family, model_args)


def llama_intermediate_size(args: Any) -> int:
    """The width of the hidden layer of torchtitan's llama3 ``FeedForward``, rounded as it rounds."""
    width = int(2 * (4 * args.dim) / 3)
    if args.ffn_dim_multiplier is not None:
        width = int(args.ffn_dim_multiplier * width)
    return int(args.multiple_of * ((width + args.multiple_of - 1) // args.multiple_of))


def _llama_config(args: Any, common: dict[str, Any]) -> Any:
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


BUILT_IN: Mapping[str, HuggingFaceModel] = {
    "llama3": HuggingFaceModel(ARCHITECTURES["llama3"], _llama_config),
    "qwen3": HuggingFaceModel(ARCHITECTURES["qwen3"], _qwen3_config),
    "deepseek_v3": HuggingFaceModel(ARCHITECTURES["deepseek_v3"], deepseek_v3_config),
    "llama4": HuggingFaceModel(ARCHITECTURES["llama4"], llama4_config),
}
"""torchtitan's own families."""
QWEN3_MOE = HuggingFaceModel("Qwen3MoeForCausalLM", _qwen3_moe_config)
"""qwen3 with experts."""
