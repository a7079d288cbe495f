"""A transformers ``config.json`` as torchtitan's model: the inverse of :mod:`titan.export.files`, without torch.

Each argument of torchtitan's model is set, and whatever the config says that torchtitan would compute otherwise is
refused by name: a weight that fits says nothing about the function that it was trained in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from titanflow.architectures.families import ARCHITECTURES
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.common.errors import ConfigError, Problem

SHAPE = ("dim", "n_layers", "n_heads", "vocab_size")
"""By these a flavor is recognised; which one it is changes nothing, since every argument is laid over it."""

NO_SCALING = {
    "scaling_factor": 1.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""torchtitan scales every llama3's RoPE; by a factor of 1 it stays as it is."""

EXPECTED: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "quantization_config": (None,),
}
"""What else a config may say only as here; what it doesn't say is so by default."""


class UnreadArchitectureError(ConfigError):
    """A model whose ``config.json`` isn't understood here; torchtitan's own adapter may still read its weights."""


def read_architecture(config: Mapping[str, Any], origin: str) -> tuple[str, str, dict[str, Any]]:
    """torchtitan's family, a flavor of it and the complete arguments of its model.

    Args:
        config: what a ``config.json`` holds, as transformers 4 or 5 writes it.
        origin: the file's path, for messages.

    Raises:
        UnreadArchitectureError: a model that brings code, or another architecture.
        ConfigError: a key that is missing, or a model that torchtitan doesn't compute; every reason is named.
    """
    if config.get("auto_map"):
        raise UnreadArchitectureError(
            Problem(
                "the model brings code of its own, which is not run",
                key="auto_map",
                origin=origin,
                expected=f"a model that transformers knows: {', '.join(ARCHITECTURES[family] for family in READERS)}",
                hint="to fine-tune what a run of yours trained, name the folder of its stage, not the export in it",
            )
        )
    named = (config.get("architectures") or [None])[0]
    family = next((family for family in READERS if ARCHITECTURES[family] == named), None)
    if family is None:
        known = ", ".join(ARCHITECTURES[family] for family in READERS)
        raise UnreadArchitectureError(Problem(f"found {named!r}", key="architectures", origin=origin, expected=known))
    reader = _Reader(config, origin)
    args = READERS[family](reader)
    for key, values in EXPECTED.items():
        if key in config and config[key] not in values:
            reader.refuse(key, f"found {config[key]!r}: torchtitan's {family} has none of it", str(values[0]))
    if reader.problems:
        raise ConfigError(reader.problems)
    flavors = load_snapshot()["models"][family]["flavors"]
    flavor = next((name for name, values in flavors.items() if all(values[key] == args[key] for key in SHAPE)), None)
    flavor = flavor or "debugmodel"
    return family, flavor, {**copy.deepcopy(flavors[flavor]), **args}


class _Reader:
    """A config with the mistakes that were found in it."""

    def __init__(self, config: Mapping[str, Any], origin: str) -> None:
        self.config, self.origin = config, origin
        self.problems: list[Problem] = []

    def refuse(self, key: str, message: str, expected: str = "") -> None:
        self.problems.append(Problem(message, key=key, origin=self.origin, expected=expected))

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        value = default if value is None else value
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        self.refuse(key, f"found {value!r}", "a whole number above 0")
        return 1

    def rope(self) -> dict[str, Any]:
        """RoPE's parameters, as transformers 5 nests them; 4 has ``rope_theta`` and ``rope_scaling``."""
        given = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        theta = given.get("rope_theta", self.config.get("rope_theta", 10_000.0))
        kind = given.get("rope_type", given.get("type", "default"))
        share = given.get("partial_rotary_factor", self.config.get("partial_rotary_factor", 1.0))
        if share != 1.0:
            self.refuse("partial_rotary_factor", f"found {share!r}", "1.0")
        return {**given, "rope_theta": float(theta), "rope_type": kind}


def _common(reader: _Reader, key_value_heads: int | None) -> dict[str, Any]:
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


def _llama(reader: _Reader) -> dict[str, Any]:
    args = _common(reader, None)
    head_dim = reader.whole("head_dim", max(1, args["dim"] // args["n_heads"]))
    if head_dim * args["n_heads"] != args["dim"]:
        reader.refuse("head_dim", f"found {head_dim}", f"hidden_size / num_attention_heads = {args['dim']}")
    if reader.config.get("tie_word_embeddings", False):
        reader.refuse("tie_word_embeddings", "found true: torchtitan's llama3 can't tie its embeddings", "false")
    rope = reader.rope()
    return {
        **args,
        **feed_forward(args["dim"], reader.whole("intermediate_size")),
        "rope_theta": rope["rope_theta"],
        "rope_scaling_args": _llama_scaling(reader, rope),
    }


def _llama_scaling(reader: _Reader, rope: Mapping[str, Any]) -> dict[str, Any]:
    if rope["rope_type"] == "default":
        return dict(NO_SCALING)
    wanted = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    if rope["rope_type"] != "llama3":
        reader.refuse("rope_scaling", f"found {rope['rope_type']!r}", "default or llama3")
        return dict(NO_SCALING)
    missing = [key for key in wanted if not isinstance(rope.get(key), int | float)]
    if missing:
        reader.refuse("rope_scaling", f"lacks {', '.join(missing)}", ", ".join(wanted))
        return dict(NO_SCALING)
    return {
        "scaling_factor": float(rope["factor"]),
        "low_freq_factor": float(rope["low_freq_factor"]),
        "high_freq_factor": float(rope["high_freq_factor"]),
        "original_max_position_embeddings": int(rope["original_max_position_embeddings"]),
    }


def feed_forward(dim: int, width: int) -> dict[str, Any]:
    """The arguments with which torchtitan's llama3 has a hidden layer of exactly ``width``.

    It takes two thirds of 4·dim times the multiplier, and rounds up to a multiple: of the width itself, what is no
    more than that becomes the width.
    """
    usual = int(2 * (4 * dim) / 3)
    return {"multiple_of": width, "ffn_dim_multiplier": None if usual <= width else (width + 0.5) / usual}


def _qwen(reader: _Reader, family: str, key_value_heads: int) -> dict[str, Any]:
    """What qwen2 and qwen3 have in common."""
    rope = reader.rope()
    if rope["rope_type"] != "default":
        reader.refuse("rope_scaling", f"found {rope['rope_type']!r}", f"default: {family} has no scaling here")
    return {
        **_common(reader, key_value_heads),
        "hidden_dim": reader.whole("intermediate_size"),
        "rope_theta": rope["rope_theta"],
        "enable_weight_tying": bool(reader.config.get("tie_word_embeddings", False)),
    }


def _qwen3(reader: _Reader) -> dict[str, Any]:
    return {
        **_qwen(reader, "qwen3", 32),
        "head_dim": reader.whole("head_dim", 128),
        "qk_norm": True,
        "moe_enabled": False,
    }


def _qwen2(reader: _Reader) -> dict[str, Any]:
    args = _qwen(reader, "qwen2", 32)
    head_dim = reader.whole("head_dim", max(1, args["dim"] // args["n_heads"]))
    if head_dim * args["n_heads"] != args["dim"]:
        reader.refuse("head_dim", f"found {head_dim}", f"hidden_size / num_attention_heads = {args['dim']}")
    return args


READERS: Mapping[str, Callable[[_Reader], dict[str, Any]]] = {"llama3": _llama, "qwen3": _qwen3, "qwen2": _qwen2}
"""The families whose ``config.json`` is understood."""
