"""What each model family can do here, beyond training; known without torch, so that a plan can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARCHITECTURES: Mapping[str, str] = {
    "llama3": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
"""Model family → the transformers class that computes the same function."""

OWN_FAMILIES: Mapping[str, str] = {"qwen2": "titan.models.qwen2"}
"""This project's own families, and the module that registers each: what ``experimental.custom_import`` names."""

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
