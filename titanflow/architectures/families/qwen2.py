"""Qwen 2.5."""

from __future__ import annotations

from typing import Any

from titanflow.architectures.blocks import Args, Shapes, attention, norms, swiglu, under
from titanflow.architectures.config_reader import ConfigReader, qwen
from titanflow.architectures.family import Family


def qwen2_block(args: Args, layer: int) -> Shapes:
    dim = args["dim"]
    return {
        **attention(args, dim // args["n_heads"], bias=True),
        **under("feed_forward", swiglu(dim, args["hidden_dim"])),
        **norms(args),
    }


def read_config(reader: ConfigReader) -> dict[str, Any]:
    args = qwen(reader, "qwen2")
    head_dim = reader.whole("head_dim", max(1, args["dim"] // args["n_heads"]))
    if head_dim * args["n_heads"] != args["dim"]:
        reader.refuse("head_dim", f"found {head_dim}", f"hidden_size / num_attention_heads = {args['dim']}")
    return args


FAMILY = Family(
    name="qwen2",
    block=qwen2_block,
    module="titan.models.qwen2",
    architecture="Qwen2ForCausalLM",
    read_config=read_config,
    llama_cpp="qwen2",
    # transformers lets a qwen2 model have no other.
    words="qwen2",
    parts_width=True,
)
