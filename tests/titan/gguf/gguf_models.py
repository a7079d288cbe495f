"""Tiny models of each kind that a GGUF file is written of, and the text of which their tokenizers have merges."""

from __future__ import annotations

from typing import Any

from torchtitan.models.llama3.model.args import RoPEScalingArgs

SCALED = RoPEScalingArgs(4.0, 1.0, 4.0, 64)
UNSCALED = RoPEScalingArgs(1.0, 1.0, 4.0, 8192)
TIED = {"enable_weight_tying": True}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama3", {"rope_scaling_args": SCALED}),
    "llama-unscaled": ("llama3", {"rope_scaling_args": UNSCALED}),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", TIED),
    "qwen3": ("qwen3", {}),
    "qwen3-tied": ("qwen3", TIED),
}
"""Two heads of keys to four of queries; qwen3's heads are wider than their share of the model."""
TEXT = "The quick brown fox, naïve and größer, isn't 東京 or 2024.\n    return x + 12345  # it's\n"
