"""llama 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.architectures.blocks import Args, Shapes, attention, norms, swiglu, swiglu_width, under
from titanflow.architectures.config_reader import ConfigReader, common
from titanflow.architectures.family import Family

NO_SCALING = {
    "scaling_factor": 1.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""torchtitan scales every llama3's RoPE; a factor of 1 leaves it unchanged."""


def llama3_block(args: Args, layer: int) -> Shapes:
    dim = args["dim"]
    width = swiglu_width(dim, args["multiple_of"], args["ffn_dim_multiplier"])
    return {**attention(args, dim // args["n_heads"]), **under("feed_forward", swiglu(dim, width)), **norms(args)}


def read_config(reader: ConfigReader) -> dict[str, Any]:
    args = common(reader, None)
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
        "rope_scaling_args": _scaling(reader, rope),
    }


def _scaling(reader: ConfigReader, rope: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    if rope["rope_type"] not in ("default", "llama3"):
        reader.refuse("rope_scaling", f"found {rope['rope_type']!r}", "default or llama3")
    elif rope["rope_type"] == "llama3":
        if not (missing := [key for key in wanted if not isinstance(rope.get(key), int | float)]):
            return {
                "scaling_factor": float(rope["factor"]),
                "low_freq_factor": float(rope["low_freq_factor"]),
                "high_freq_factor": float(rope["high_freq_factor"]),
                "original_max_position_embeddings": int(rope["original_max_position_embeddings"]),
            }
        reader.refuse("rope_scaling", f"lacks {', '.join(missing)}", ", ".join(wanted))
    return dict(NO_SCALING)


def feed_forward(dim: int, width: int) -> dict[str, Any]:
    """The arguments with which torchtitan's llama3 has a hidden layer of exactly ``width``.

    torchtitan takes two thirds of 4·dim times the multiplier and rounds up to a multiple. With the width itself as that
    multiple, anything up to it becomes the width.
    """
    usual = int(2 * (4 * dim) / 3)
    return {"multiple_of": width, "ffn_dim_multiplier": None if usual <= width else (width + 0.5) / usual}


FAMILY = Family(
    name="llama3",
    block=llama3_block,
    architecture="LlamaForCausalLM",
    read_config=read_config,
    llama_cpp="llama",
    parts_width=True,
)
