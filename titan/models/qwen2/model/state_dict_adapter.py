"""Weights of Qwen2.5 between torchtitan's names and transformers'."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torchtitan.protocols.state_dict_adapter import StateDictAdapter

LAYER = re.compile(r"(?<=layers\.)\d+")
TIED = "output.weight"
"""transformers stores no weight for a tied output layer."""


class Qwen2StateDictAdapter(StateDictAdapter):
    """Renames weights and changes none, for both sides rotate the halves of a head.

    A family that builds on Qwen2.5 adds the names of its new parts to ``NAMES``.
    """

    NAMES: ClassVar[dict[str, str]] = {
        "tok_embeddings.weight": "model.embed_tokens.weight",
        "layers.{}.attention.wq.weight": "model.layers.{}.self_attn.q_proj.weight",
        "layers.{}.attention.wq.bias": "model.layers.{}.self_attn.q_proj.bias",
        "layers.{}.attention.wk.weight": "model.layers.{}.self_attn.k_proj.weight",
        "layers.{}.attention.wk.bias": "model.layers.{}.self_attn.k_proj.bias",
        "layers.{}.attention.wv.weight": "model.layers.{}.self_attn.v_proj.weight",
        "layers.{}.attention.wv.bias": "model.layers.{}.self_attn.v_proj.bias",
        "layers.{}.attention.wo.weight": "model.layers.{}.self_attn.o_proj.weight",
        "layers.{}.feed_forward.w1.weight": "model.layers.{}.mlp.gate_proj.weight",
        "layers.{}.feed_forward.w3.weight": "model.layers.{}.mlp.up_proj.weight",
        "layers.{}.feed_forward.w2.weight": "model.layers.{}.mlp.down_proj.weight",
        "layers.{}.attention_norm.weight": "model.layers.{}.input_layernorm.weight",
        "layers.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
        "norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    """torchtitan's name → transformers' name, with {} for the layer's number."""

    def __init__(self, model_args: Any, hf_assets_path: str | None) -> None:
        super().__init__(model_args, hf_assets_path)
        self.model_args = model_args

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        is_tied = self.model_args.enable_weight_tying
        return {_renamed(key, self.NAMES): value for key, value in state_dict.items() if not (is_tied and key == TIED)}

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """A tied output layer gets the embedding's weight."""
        names = {theirs: ours for ours, theirs in self.NAMES.items()}
        state_dict = {
            _renamed(key, names): value for key, value in hf_state_dict.items() if not key.endswith("inv_freq")
        }
        if self.model_args.enable_weight_tying:
            state_dict[TIED] = state_dict["tok_embeddings.weight"]
        return state_dict


def names_in_layers(*names: str) -> dict[str, str]:
    """Entries of ``NAMES`` for a layer's weights that have the same name in a modelling file."""
    return {f"layers.{{}}.{name}": f"model.layers.{{}}.{name}" for name in names}


def _renamed(key: str, names: Mapping[str, str]) -> str:
    found = LAYER.search(key)
    if found is None:
        return names[key]
    return names[LAYER.sub("{}", key, count=1)].format(found.group())
