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
    if not isinstance(layers, int):
        return [], []
    if family == "deepseek_v3":
        blocks = [_deepseek_v3(layer, model_args) for layer in range(layers)]
    elif family in NORMS and not model_args.get("moe_enabled") and not export_refusal(family, model_args):
        blocks = [(LINEARS, NORMS[family])] * layers
    else:
        return [], []
    linears = [f"layers.{layer}.{name}" for layer, (names, _) in enumerate(blocks) for name in names]
    others = [f"layers.{layer}.{name}" for layer, (_, names) in enumerate(blocks) for name in names]
    return [*linears, HEAD], [EMBEDDINGS, *others, "norm"]


def _deepseek_v3(layer: int, args: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A block of multi-head latent attention; the first ``n_dense_layers`` have no experts."""
    is_dense, has_rank = layer < args["n_dense_layers"], bool(args["q_lora_rank"])
    queries = ("wq_a", "wq_b") if has_rank else ("wq",)
    attention = tuple(f"attention.{name}" for name in (*queries, "wkv_a", "wkv_b", "wo"))
    shared = ("moe.shared_experts.w1", "moe.shared_experts.w2", "moe.shared_experts.w3")
    mixture = ("moe.router.gate", *(shared if args["moe_args"]["num_shared_experts"] else ()))
    norms = (*NORMS["llama3"], "attention.kv_norm", *(("attention.q_norm",) if has_rank else ()))
    if is_dense:
        return (*attention, *LINEARS[4:]), norms
    return (*attention, *mixture), (*norms, "moe.experts")
