"""The names of a model's modules, as torchtitan has them; known without torch, so that a plan can check a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.families import export_refusal

LINEARS = (
    "attention.wq", "attention.wk", "attention.wv", "attention.wo",
    "feed_forward.w1", "feed_forward.w2", "feed_forward.w3",
)  # fmt: skip
"""The linear layers in each block of a dense llama3, qwen3 or qwen2."""
EMBEDDINGS = "tok_embeddings"
HEAD = "output"
"""The linear layer behind the last block."""
NORMS: Mapping[str, tuple[str, ...]] = {
    "llama3": ("attention_norm", "ffn_norm"),
    "qwen3": ("attention_norm", "ffn_norm", "attention.q_norm", "attention.k_norm"),
    "qwen2": ("attention_norm", "ffn_norm"),
}
"""The norms in each block."""


def module_names(family: str, model_args: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names of a model's linear layers, and of its other modules with weights; empty where they aren't known.

    Args:
        family: torchtitan's name, as in ``model.name``.
        model_args: the model's arguments.
    """
    layers = model_args.get("n_layers")
    if family not in NORMS or export_refusal(family, model_args) or not isinstance(layers, int):
        return [], []
    blocks = [f"layers.{layer}" for layer in range(layers)]
    linears = [f"{block}.{name}" for block in blocks for name in LINEARS]
    norms = [f"{block}.{name}" for block in blocks for name in NORMS[family]]
    return [*linears, HEAD], [EMBEDDINGS, *norms, "norm"]
