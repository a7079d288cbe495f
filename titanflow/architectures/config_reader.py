"""Reads a transformers ``config.json`` key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.common.errors import Problem


class ConfigReader:
    """Reads a config, and collects the mistakes found in it as ``problems``."""

    def __init__(self, config: Mapping[str, Any], origin: str) -> None:
        self.config, self.origin = config, origin
        self.problems: list[Problem] = []

    def refuse(self, key: str, message: str, expected: str = "") -> None:
        self.problems.append(Problem(message, key=key, origin=self.origin, expected=expected))

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number above 0; 1 in place of a mistake, so that reading can go on."""
        value = default if self.config.get(key) is None else self.config[key]
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        self.refuse(key, f"found {value!r}", "a whole number above 0")
        return 1

    def rope(self) -> dict[str, Any]:
        """RoPE's parameters: ``rope_parameters`` of transformers 5, or ``rope_theta`` and ``rope_scaling`` of 4."""
        given = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        theta = given.get("rope_theta", self.config.get("rope_theta", 10_000.0))
        kind = given.get("rope_type", given.get("type", "default"))
        share = given.get("partial_rotary_factor", self.config.get("partial_rotary_factor", 1.0))
        if share != 1.0:
            self.refuse("partial_rotary_factor", f"found {share!r}", "1.0")
        return {**given, "rope_theta": float(theta), "rope_type": kind}


def common(reader: ConfigReader, key_value_heads: int | None) -> dict[str, Any]:
    """The arguments that all decoders have; ``key_value_heads`` is the default, None for as many as heads."""
    heads = reader.whole("num_attention_heads")
    return {
        "dim": reader.whole("hidden_size"),
        "n_layers": reader.whole("num_hidden_layers"),
        "n_heads": heads,
        "n_kv_heads": reader.whole("num_key_value_heads", key_value_heads or heads),
        "vocab_size": reader.whole("vocab_size"),
        "norm_eps": float(reader.config.get("rms_norm_eps", 1e-6)),
        "max_seq_len": reader.whole("max_position_embeddings"),
        "attn_type": "sdpa",
        "attn_mask_type": "causal",
    }


def qwen(reader: ConfigReader, family: str) -> dict[str, Any]:
    rope = reader.rope()
    if rope["rope_type"] != "default":
        reader.refuse("rope_scaling", f"found {rope['rope_type']!r}", f"default: {family} has no scaling here")
    return {
        **common(reader, 32),
        "hidden_dim": reader.whole("intermediate_size"),
        "rope_theta": rope["rope_theta"],
        "enable_weight_tying": bool(reader.config.get("tie_word_embeddings", False)),
    }
