"""Which models have an export that transformers loads; known without torch, so that a plan can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARCHITECTURES: Mapping[str, str] = {"llama3": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""torchtitan's model family → the transformers class that computes the same function."""


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
