"""Converts all weights of torchtitan's llama4 to and from the names of transformers' ``Llama4ForCausalLM``."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
from torchtitan.protocols.state_dict_adapter import StateDictAdapter

LAYER = re.compile(r"(?<=layers\.)\d+")
W1, W2, W3 = (f"layers.{{}}.moe.experts.w{number}" for number in (1, 2, 3))
GATE_UP, DOWN = (f"model.layers.{{}}.feed_forward.experts.{name}_proj" for name in ("gate_up", "down"))
BIAS = "expert_bias"
"""Balances the experts, where a model has one; transformers has no place for it."""
_BLOCK = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "feed_forward.gate_proj",
    "feed_forward.w2": "feed_forward.down_proj",
    "feed_forward.w3": "feed_forward.up_proj",
    "moe.router.gate": "feed_forward.router",
    "moe.shared_experts.w1": "feed_forward.shared_expert.gate_proj",
    "moe.shared_experts.w2": "feed_forward.shared_expert.down_proj",
    "moe.shared_experts.w3": "feed_forward.shared_expert.up_proj",
}


class Llama4TextStateDictAdapter(StateDictAdapter):
    """Renames weights and joins experts: transformers keeps gate and up side by side, all matrices transposed."""

    NAMES: ClassVar[dict[str, str]] = {
        "tok_embeddings.weight": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
        **{f"layers.{{}}.{ours}.weight": f"model.layers.{{}}.{theirs}.weight" for ours, theirs in _BLOCK.items()},
    }

    def __init__(self, model_args: Any, hf_assets_path: str | None) -> None:
        super().__init__(model_args, hf_assets_path)
        self.model_args = model_args

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """All three matrices of a layer's experts have to be there."""
        named: dict[str, Any] = {}
        for key, value in state_dict.items():
            name, layer = _parted(key)
            if name == W1:
                pair = (value, state_dict[W3.format(layer)])
                named[GATE_UP.format(layer)] = torch.cat([one.transpose(-1, -2) for one in pair], dim=-1)
            elif name == W2:
                named[DOWN.format(layer)] = value.transpose(-1, -2)
            elif name != W3 and not name.endswith(BIAS):
                named[self.NAMES[name].format(layer)] = value
        return named

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        names = {theirs: ours for ours, theirs in self.NAMES.items()}
        state: dict[str, Any] = {}
        for key, value in hf_state_dict.items():
            name, layer = _parted(key)
            if name == GATE_UP:
                gate, up = value.chunk(2, dim=-1)
                state |= {W1.format(layer): gate.transpose(-1, -2), W3.format(layer): up.transpose(-1, -2)}
            elif name == DOWN:
                state[W2.format(layer)] = value.transpose(-1, -2)
            else:
                state[names[name].format(layer)] = value
        return state


def _parted(key: str) -> tuple[str, str]:
    """A name with {} for the layer's number, and that number; empty outside the layers."""
    found = LAYER.search(key)
    return (key, "") if found is None else (LAYER.sub("{}", key, count=1), found.group())
