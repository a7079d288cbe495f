"""Every weight of a model by its name in torchtitan, with its shape: from the model's arguments alone, without torch.

Written after the models of torchtitan 0.2.2 (``torchtitan/models/*/model/model.py``) and this project's own
(``titan/models``); a test builds each published flavor on the meta device and compares name by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Args = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]
EMBEDDINGS = "tok_embeddings"
HEAD = "output"
"""The linear layer behind the last block."""


def model_weights(family: str, args: Args) -> Shapes | None:
    """A model's weights, name → shape; None for a family whose layers aren't known here.

    The output head is left out where it is the embedding (``enable_weight_tying``).

    Args:
        family: torchtitan's name, as in ``model.name``.
        args: the model's arguments, all of them.
    """
    block = BLOCKS.get(family)
    if block is None or not args:
        return None
    dim, vocabulary = args["dim"], args["vocab_size"]
    shapes: Shapes = {f"{EMBEDDINGS}.weight": (vocabulary, dim)}
    for layer in range(args["n_layers"]):
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in block(args, layer).items()}
    shapes["norm.weight"] = (dim,)
    if not args.get("enable_weight_tying"):
        shapes[f"{HEAD}.weight"] = (vocabulary, dim)
    return shapes


def swiglu_width(dim: int, multiple_of: int, multiplier: float | None) -> int:
    """The width of llama's feed-forward layer: two thirds of four times ``dim``, rounded up to ``multiple_of``."""
    width = int(2 * 4 * dim / 3)
    if multiplier is not None:
        width = int(multiplier * width)
    return -(-width // multiple_of) * multiple_of


def routed_width(args: Args) -> int:
    """The width of each of a llama4's experts."""
    width = int(2 * 4 * args["dim"] / 3)
    if args["ffn_dim_multiplier"] is not None:
        width = int(args["ffn_dim_multiplier"] * width)
    if args["auto_scale_hidden_dim"]:
        width = int(width / (args["moe_args"]["top_k"] + args["moe_args"]["num_shared_experts"]))
    return width + -width % args["multiple_of"]


def small_width(dim: int, factor: float) -> int:
    """The width of the small network that foresees a layer's change; as in titan.models.remote_code.surprise."""
    width = math.ceil(dim * factor)
    return max(2, width + width % 2)


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def _linear(out: int, into: int, bias: bool = False) -> Shapes:
    return {"weight": (out, into), **({"bias": (out,)} if bias else {})}


def _swiglu(dim: int, width: int) -> Shapes:
    return {"w1.weight": (width, dim), "w2.weight": (dim, width), "w3.weight": (width, dim)}


def _norms(args: Args) -> Shapes:
    return {"attention_norm.weight": (args["dim"],), "ffn_norm.weight": (args["dim"],)}


def _attention(args: Args, head_dim: int, bias: bool = False, out_bias: bool = False) -> Shapes:
    """Grouped queries: ``wq wk wv wo``."""
    dim, queries = args["dim"], args["n_heads"] * head_dim
    keys = (args["n_kv_heads"] or args["n_heads"]) * head_dim
    return {
        **_under("attention.wq", _linear(queries, dim, bias)),
        **_under("attention.wk", _linear(keys, dim, bias)),
        **_under("attention.wv", _linear(keys, dim, bias)),
        **_under("attention.wo", _linear(dim, queries, out_bias)),
    }


def _experts(args: Args, width: int) -> Shapes:
    """torchtitan's ``MoE``: grouped experts, a router, shared experts."""
    dim, moe = args["dim"], args["moe_args"]
    count, shared = moe["num_experts"], moe["num_shared_experts"]
    return {
        "moe.experts.w1": (count, width, dim),
        "moe.experts.w2": (count, dim, width),
        "moe.experts.w3": (count, width, dim),
        **_under("moe.router.gate", _linear(count, dim, moe["gate_bias"])),
        **(_under("moe.shared_experts", _swiglu(dim, width * shared)) if shared > 0 else {}),
    }


def _llama3(args: Args, layer: int) -> Shapes:
    dim = args["dim"]
    width = swiglu_width(dim, args["multiple_of"], args["ffn_dim_multiplier"])
    return {
        **_attention(args, dim // args["n_heads"]),
        **_under("feed_forward", _swiglu(dim, width)),
        **_norms(args),
    }


def _llama4(args: Args, layer: int) -> Shapes:
    if (layer + 1) % args["interleave_moe_layer_step"]:
        return _llama3(args, layer)
    return {**_attention(args, args["dim"] // args["n_heads"]), **_experts(args, routed_width(args)), **_norms(args)}


def _qwen3(args: Args, layer: int) -> Shapes:
    head_dim = args["head_dim"]
    norms = {f"attention.{name}_norm.weight": (head_dim,) for name in "qk"} if args["qk_norm"] else {}
    mixture = args["moe_enabled"]
    return {
        **_attention(args, head_dim),
        **norms,
        **(
            _experts(args, args["moe_inter_dim"])
            if mixture
            else _under("feed_forward", _swiglu(args["dim"], args["hidden_dim"]))
        ),
        **_norms(args),
    }


def _deepseek_v3(args: Args, layer: int) -> Shapes:
    """Multi-head latent attention; the first ``n_dense_layers`` have no experts."""
    dim, heads, values = args["dim"], args["n_heads"], args["v_head_dim"]
    queries, latent = args["q_lora_rank"], args["kv_lora_rank"]
    plain, rotary = args["qk_nope_head_dim"], args["qk_rope_head_dim"]
    wide = heads * (plain + rotary)
    query_weights: Shapes = (
        {"wq_a.weight": (queries, dim), "q_norm.weight": (queries,), "wq_b.weight": (wide, queries)}
        if queries
        else {"wq.weight": (wide, dim)}
    )
    attention: Shapes = {
        **query_weights,
        "wkv_a.weight": (latent + rotary, dim),
        "kv_norm.weight": (latent,),
        "wkv_b.weight": (heads * (plain + values), latent),
        "wo.weight": (dim, heads * values),
    }
    is_dense = layer < args["n_dense_layers"]
    return {
        **_under("attention", attention),
        **(
            _under("feed_forward", _swiglu(dim, args["inter_dim"]))
            if is_dense
            else _experts(args, args["moe_inter_dim"])
        ),
        **_norms(args),
    }


def _gpt_oss(args: Args, layer: int) -> Shapes:
    """Biases everywhere, a sink for each head, and experts whose two matrices have biases too."""
    dim, width, moe = args["dim"], args["moe_inter_dim"], args["moe_args"]
    count = moe["num_experts"]
    others = {name: shape for name, shape in _experts(args, width).items() if not name.startswith("moe.experts.")}
    return {
        **_attention(args, args["head_dim"], bias=True, out_bias=True),
        "attention.sinks": (args["n_heads"],),
        "moe.experts.mlp1_weight": (count, 2 * width, dim),
        "moe.experts.mlp1_bias": (count, 2 * width),
        "moe.experts.mlp2_weight": (count, dim, width),
        "moe.experts.mlp2_bias": (count, dim),
        **others,
        **_norms(args),
    }


def _qwen2(args: Args, layer: int) -> Shapes:
    dim = args["dim"]
    return {
        **_attention(args, dim // args["n_heads"], bias=True),
        **_under("feed_forward", _swiglu(dim, args["hidden_dim"])),
        **_norms(args),
    }


def _mod(args: Args, layer: int) -> Shapes:
    dim = args["dim"]
    if not is_routed("mod", args, layer):
        return _qwen2(args, layer)
    own = {
        **_under("predictor.down", _linear(dim // 2, dim, bias=True)),
        **_under("predictor.score", _linear(1, dim // 2, bias=True)),
    }
    return {**_qwen2(args, layer), "router.weight": (1, dim), **_causal_router(args, own)}


def _causal_router(args: Args, own: Shapes) -> Shapes:
    """What chooses tokens in evaluation: ``own`` weights of the family's, or a layer of a token and the one before."""
    if args["causal_router"] == "own":
        return own
    return _under("causal_router", _linear(1, 2 * args["dim"], bias=True))


def _foresight(args: Args) -> Shapes:
    dim, width = args["dim"], small_width(args["dim"], args["prior_factor"])
    return {"gate.weight": (width, dim), "up.weight": (width, dim), "down.weight": (dim, width)}


def _dtf(args: Args, layer: int) -> Shapes:
    if not is_routed("dtf", args, layer):
        return {**_qwen2(args, layer), "prior_norm.weight": (args["dim"],), **_under("prior", _foresight(args))}
    scoring = {f"router.{name}": (1,) for name in ("o_ce", "m_cu", "beta_ce", "beta_cu")}
    own: Shapes = {f"router.{name}": (1,) for name in ("slope", "threshold")}
    return {**_qwen2(args, layer), **scoring, **_causal_router(args, own)}


def _tdtf(args: Args, layer: int) -> Shapes:
    if not is_routed("tdtf", args, layer):
        return _qwen2(args, layer)
    dim = args["dim"]
    return {
        **_qwen2(args, layer),
        "router.o_ce": (1,),
        "router.m_cu": (1,),
        "transition_norm.weight": (dim,),
        **_under("transition", _foresight(args)),
        "student_norm.weight": (dim,),
        **_under("student", _linear(1, 2 * dim, bias=True)),
    }


def is_routed(family: str, args: Args, layer: int) -> bool:
    """Whether a layer, by its number from 0, computes a share of the tokens alone."""
    if family == "mod":
        return bool((layer + 1) % args["route_every"] == 0)
    return family in ("dtf", "tdtf") and layer % 2 == 1


BLOCKS: Mapping[str, Callable[[Args, int], Shapes]] = {
    "llama3": _llama3,
    "llama4": _llama4,
    "qwen3": _qwen3,
    "deepseek_v3": _deepseek_v3,
    "gpt_oss": _gpt_oss,
    "qwen2": _qwen2,
    "mod": _mod,
    "dtf": _dtf,
    "tdtf": _tdtf,
}
"""Model family → the weights of one of its layers, by the layer's number from 0."""
