"""The parts of the families' layers as shapes of weights, from the arguments alone and without torch.

Written after the models of torchtitan 0.2.2 (``torchtitan/models/*/model/model.py``) and this project's own
(``titan/models``); a test builds each published flavor on the meta device and compares name by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Args = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]
EMBEDDINGS = "tok_embeddings"
HEAD = "output"
"""The linear layer behind the last block."""


def swiglu_width(dim: int, multiple_of: int, multiplier: float | None, parts: int = 1) -> int:
    """The width of llama's feed-forward layer: two thirds of four times ``dim``, rounded up to ``multiple_of``."""
    width = int(2 * 4 * dim / 3)
    if multiplier is not None:
        width = int(multiplier * width)
    return -(-int(width / parts) // multiple_of) * multiple_of


def routed_width(args: Args) -> int:
    """The width of each of a llama4's experts."""
    moe = args["moe_args"]
    # All experts that a token meets are together as wide as a dense layer.
    parts = moe["top_k"] + moe["num_shared_experts"] if args["auto_scale_hidden_dim"] else 1
    return swiglu_width(args["dim"], args["multiple_of"], args["ffn_dim_multiplier"], parts)


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def linear(out: int, into: int, bias: bool = False) -> Shapes:
    return {"weight": (out, into), **({"bias": (out,)} if bias else {})}


def swiglu(dim: int, width: int) -> Shapes:
    return {"w1.weight": (width, dim), "w2.weight": (dim, width), "w3.weight": (width, dim)}


def norms(args: Args) -> Shapes:
    return {"attention_norm.weight": (args["dim"],), "ffn_norm.weight": (args["dim"],)}


def attention(args: Args, head_dim: int, bias: bool = False, out_bias: bool = False) -> Shapes:
    dim, queries = args["dim"], args["n_heads"] * head_dim
    keys = (args["n_kv_heads"] or args["n_heads"]) * head_dim
    return {
        **under("attention.wq", linear(queries, dim, bias)),
        **under("attention.wk", linear(keys, dim, bias)),
        **under("attention.wv", linear(keys, dim, bias)),
        **under("attention.wo", linear(dim, queries, out_bias)),
    }


def experts(args: Args, width: int) -> Shapes:
    """torchtitan's ``MoE``: grouped experts, a router, shared experts."""
    dim, moe = args["dim"], args["moe_args"]
    count, shared = moe["num_experts"], moe["num_shared_experts"]
    return {
        "moe.experts.w1": (count, width, dim),
        "moe.experts.w2": (count, dim, width),
        "moe.experts.w3": (count, width, dim),
        **under("moe.router.gate", linear(count, dim, moe["gate_bias"])),
        **(under("moe.shared_experts", swiglu(dim, width * shared)) if shared > 0 else {}),
    }


def causal_router(args: Args, own: Shapes) -> Shapes:
    """Chooses tokens in evaluation: the family's ``own`` weights, or a layer over a token and the one before it."""
    if args["causal_router"] == "own":
        return own
    return under("causal_router", linear(1, 2 * args["dim"], bias=True))


def foresight(args: Args) -> Shapes:
    """The small network that foresees a layer's change, as wide as titan.models.remote_code.surprise makes it."""
    dim = args["dim"]
    width = math.ceil(dim * args["prior_factor"])
    width = max(2, width + width % 2)
    return {"gate.weight": (width, dim), "up.weight": (width, dim), "down.weight": (dim, width)}
