"""Floating point operations of a decoder, counted as torchtitan counts them.

Each weight of a matrix product costs six a token (two forward, four backward). Attention costs six times heads, both
head widths and keys, without regard to causality (PaLM, arXiv:2204.02311, appendix B).
"""

from __future__ import annotations

from torch import nn

from titanflow.planning.forecast.flops import FORWARD_AND_BACKWARD


def dense_parameters_and_flops(args, model: nn.Module, seq_len: int) -> tuple[int, int]:
    """The parameters of a dense decoder, tied ones once, and its operations for a token that sees ``seq_len`` keys.

    The embedding's lookup is no product; its weight counts only if the output shares it.
    """
    parameters = {id(parameter): parameter.numel() for parameter in model.parameters()}
    if args.enable_weight_tying:
        # On the meta device the two aren't tied yet.
        parameters.pop(id(model.output.weight), None)
        parameters[id(model.tok_embeddings.weight)] = model.tok_embeddings.weight.numel()
    total = sum(parameters.values())
    multiplied = total if args.enable_weight_tying else total - model.tok_embeddings.weight.numel()
    attention = args.n_layers * attention_flops(args, seq_len)
    return total, FORWARD_AND_BACKWARD * multiplied + attention


def attention_flops(args, keys: float) -> int:
    """One layer's attention for one token over ``keys``, forward and backward."""
    return int(FORWARD_AND_BACKWARD * args.n_heads * 2 * args.head_dim * keys)


def routed_parameters_and_flops(args, model: nn.Module, seq_len: int) -> tuple[int, int]:
    """The parameters of a decoder with routed layers, and its operations a token of training.

    A routed layer computes a ``share`` of the tokens, each of which attends to that share of the keys. All of it but
    attention and feed-forward (the router) sees every token.
    """
    total, _ = dense_parameters_and_flops(args, model, seq_len)
    multiplied = FORWARD_AND_BACKWARD * model.output.weight.numel()
    return total, multiplied + sum(layer_flops(args, layer, seq_len) for layer in model.layers.values())


def layer_flops(args, layer: nn.Module, seq_len: int) -> int:
    """One layer's operations a token of training, forward and backward.

    A layer that ``has_teacher`` also computes every token forward, without a backward pass: a third of a dense one.
    """
    share = getattr(layer, "share", 1.0)
    shared = sum(p.numel() for part in (layer.attention, layer.feed_forward) for p in part.parameters())
    own = sum(p.numel() for p in layer.parameters()) - shared
    dense = FORWARD_AND_BACKWARD * shared
    teacher = (dense + attention_flops(args, seq_len)) / 3 if getattr(layer, "has_teacher", False) else 0
    routed = share * (dense + attention_flops(args, share * seq_len))
    return int(routed + teacher + FORWARD_AND_BACKWARD * own)
