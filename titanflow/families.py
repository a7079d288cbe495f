"""What each model family can do here, beyond training; known without torch, so that a plan can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARCHITECTURES: Mapping[str, str] = {
    "llama3": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "mod": "ModForCausalLM",
    "dtf": "DtfForCausalLM",
    "tdtf": "TdtfForCausalLM",
}
"""Model family → the class for transformers that computes the same function: its own, or one that the export brings."""

OWN_FAMILIES: Mapping[str, str] = {
    "qwen2": "titan.models.qwen2",
    "mod": "titan.models.mod",
    "dtf": "titan.models.dtf",
    "tdtf": "titan.models.tdtf",
}
"""This project's own families, and the module that registers each: what ``experimental.custom_import`` names."""

PARAMETER_GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "mod": {"router": ("router", "predictor")},
    "dtf": {"prior": ("prior", "prior_norm"), "router": ("router",)},
    "tdtf": {"prior": ("transition", "transition_norm"), "router": ("router", "student", "student_norm")},
}
"""The families with routed layers: groups of parameters that ``optimizer.group_lr`` may give a learning rate of their
own, each by the names of its modules. All other parameters are the base."""

OWN_MASKS: Mapping[str, str] = {
    "llama4": "its layers take one of two masks, in which documents end at each end-of-sequence token",
    "gpt_oss": "documents end at each end-of-sequence token in its masks, and it takes no positions",
    "flux": "it is no language model",
}
"""The families whose attention can't be kept within the documents of a packed row, and why."""


def supported_families() -> tuple[str, ...]:
    """The families with an export, by torchtitan's name."""
    return tuple(ARCHITECTURES)


def export_refusal(family: str, model_args: Mapping[str, Any] | None = None) -> str:
    """Why a model can't be exported; empty where it can.

    Args:
        family: torchtitan's name, as in ``model.name``.
        model_args: the model's arguments, where they are known: a variant of a supported family (mixture of
            experts, no QK norm) may have no export.
    """
    if family not in ARCHITECTURES:
        return f"there is no export for the model family {family!r}; supported: {', '.join(ARCHITECTURES)}"
    args = model_args or {}
    if args.get("moe_enabled"):
        return f"there is no export for {family} with experts (moe_enabled); supported: its dense flavors"
    if family == "qwen3" and not args.get("qk_norm", True):
        return "transformers' Qwen3 always normalises queries and keys, and this model has qk_norm=False"
    return ""


def packing_refusals(family: str, context_parallel: int, pipeline_parallel: int) -> dict[str, str]:
    """Why rows can't be packed: the key that stands in the way, and the reason; empty where they can.

    Args:
        family: torchtitan's name, as in ``model.name``.
        context_parallel: how many ranks share a row.
        pipeline_parallel: how many ranks share the layers.
    """
    refusals = {}
    if family in OWN_MASKS:
        refusals["model.name"] = f"{family} can't keep the documents of a row apart: {OWN_MASKS[family]}"
    if context_parallel > 1:
        refusals["parallelism.context_parallel_degree"] = "the ranks cut each row, and its documents with it"
    if pipeline_parallel > 1:
        refusals["parallelism.pipeline_parallel_degree"] = (
            "torchtitan gives a row's positions to the pipeline's first stage only"
        )
    return refusals


def routed_refusals(degrees: Mapping[str, int], attention: str = "sdpa") -> dict[str, str]:
    """Why a model with routed layers can't be trained so: the key that stands in the way, and the reason.

    Args:
        degrees: of each ``parallelism.…_parallel_degree``, by its full key.
        attention: the model's ``attn_type``.
    """
    reasons = {
        "parallelism.tensor_parallel_degree": "a routed layer's tokens are chosen from whole rows, which it would cut",
        "parallelism.context_parallel_degree": "a routed layer's tokens are chosen from whole rows, which it would cut",
        "parallelism.pipeline_parallel_degree": "torchtitan gives a row's positions to the pipeline's first stage only",
    }
    refusals = {key: why for key, why in reasons.items() if degrees.get(key, 1) > 1}
    if attention != "sdpa":
        refusals["model.attn_type"] = f"found {attention!r}, and a routed layer's attention is sdpa"
    return refusals
