"""Qwen2.5: a decoder with RMSNorm, SwiGLU, RoPE, grouped queries and biases on queries, keys and values.

It is written for one device; ``infra/parallelize.py`` adds parallelism from outside. Model families that build on it
replace its layers (:meth:`Qwen2Model.build_layer`) or how they are run (:meth:`Qwen2Model.run_layers`).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.models.attention import FlexAttentionWrapper, VarlenAttentionWrapper
from torchtitan.models.qwen3.model.model import Qwen3Model, apply_rotary_emb, precompute_rope_cache
from torchtitan.models.utils import trunc_normal_
from torchtitan.protocols.model import AttentionMasksType, ModelProtocol

from titan.models.attention import MaskedAttention

from .args import Qwen2ModelArgs

INIT_STD = 0.02
OUTPUT_CUTOFF = 3
"""How many standard deviations the output layer's weights may be from 0."""


class Attention(nn.Module):
    """Self-attention with grouped queries, and biases on all but the output projection."""

    bias = True

    def __init__(self, args: Qwen2ModelArgs) -> None:
        super().__init__()
        self.head_dim = args.head_dim
        self.attn_type = args.attn_type
        self.enable_gqa = args.n_heads > args.n_kv_heads
        self.wq = nn.Linear(args.dim, args.n_heads * args.head_dim, bias=self.bias)
        self.wk = nn.Linear(args.dim, args.n_kv_heads * args.head_dim, bias=self.bias)
        self.wv = nn.Linear(args.dim, args.n_kv_heads * args.head_dim, bias=self.bias)
        self.wo = nn.Linear(args.n_heads * args.head_dim, args.dim, bias=False)
        self.inner_attention = build_attention(args)

    def forward(
        self,
        x: torch.Tensor,
        rope_cache: torch.Tensor,
        attention_masks: AttentionMasksType | torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attends.

        Args:
            x: ``[batch, seq_len, dim]``.
            rope_cache: cosine and sine of each position, ``[max_seq_len, 2 * head_dim]``.
            attention_masks: as ``attn_type`` needs them; with ``sdpa`` a bool mask, or None for a causal one.
            positions: of each token in its document, ``[batch, seq_len]``; counted from 0 in each row unless given.
        """
        rows, seq_len, _ = x.shape
        # -1 heads: under tensor parallelism a rank has some of them.
        q, k, v = (projected.view(rows, seq_len, -1, self.head_dim) for projected in self.project(x))
        q, k = apply_rotary_emb(q, k, rope_cache, positions)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        scale = self.head_dim**-0.5
        if self.attn_type == "varlen":
            output = self.inner_attention(q, k, v, attention_masks, scale=scale)
        else:
            name = "block_mask" if self.attn_type == "flex" else "mask"
            settings = {name: attention_masks, "scale": scale, "enable_gqa": self.enable_gqa}
            output = self.inner_attention(q, k, v, **settings).transpose(1, 2).contiguous()
        return self.wo(output.view(rows, seq_len, -1))

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, each ``[batch, seq_len, heads * head_dim]``, before RoPE."""
        return self.wq(x), self.wk(x), self.wv(x)

    def init_weights(self, output_std: float) -> None:
        for linear in (self.wq, self.wk, self.wv):
            trunc_normal_(linear.weight, mean=0.0, std=INIT_STD)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        trunc_normal_(self.wo.weight, mean=0.0, std=output_std)


def build_attention(args: Qwen2ModelArgs) -> nn.Module:
    if args.attn_type == "sdpa":
        return MaskedAttention(args.dropout)
    if args.attn_type not in ("flex", "varlen"):
        raise ValueError(f"model.attn_type: found {args.attn_type!r}, expected sdpa, flex or varlen")
    if args.dropout:
        raise ValueError(f"model.dropout: found {args.dropout}, and {args.attn_type} attention has none; set 0 or sdpa")
    return FlexAttentionWrapper() if args.attn_type == "flex" else VarlenAttentionWrapper()


class FeedForward(nn.Module):
    """SwiGLU (arXiv:2002.05202): ``w2(silu(w1 x) ⊙ w3 x)``, no biases."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[…, dim]`` to ``[…, dim]``."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))

    def init_weights(self, output_std: float) -> None:
        for linear in (self.w1, self.w3):
            trunc_normal_(linear.weight, mean=0.0, std=INIT_STD)
        trunc_normal_(self.w2.weight, mean=0.0, std=output_std)


class TransformerBlock(nn.Module):
    """One layer: attention and feed-forward, each after its norm, each added to the residual stream."""

    moe_enabled = False

    def __init__(self, layer_id: int, args: Qwen2ModelArgs) -> None:
        super().__init__()
        self.layer_id = layer_id
        self.attention = Attention(args)
        self.feed_forward = FeedForward(args.dim, args.hidden_dim)
        self.attention_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.ffn_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.dropout = nn.Dropout(args.dropout)
        self.output_std = INIT_STD / (2 * (layer_id + 1)) ** 0.5

    def forward(
        self,
        x: torch.Tensor,
        rope_cache: torch.Tensor,
        attention_masks: AttentionMasksType | torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``[batch, seq_len, dim]`` to the same; see :meth:`Attention.forward`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rope_cache, attention_masks, positions))
        return x + self.dropout(self.feed_forward(self.ffn_norm(x)))

    def init_weights(self, buffer_device: torch.device | None = None) -> None:
        """The deeper the layer, the smaller what it adds to the residual stream."""
        for norm in (self.attention_norm, self.ffn_norm):
            norm.reset_parameters()
        self.attention.init_weights(self.output_std)
        self.feed_forward.init_weights(self.output_std)


class Qwen2Model(ModelProtocol):
    """The decoder. ``tok_embeddings``, ``norm`` and ``output`` may be None, as in a pipeline's stage."""

    def __init__(self, model_args: Qwen2ModelArgs) -> None:
        super().__init__(model_args)
        self.model_args = model_args
        self.tok_embeddings = nn.Embedding(model_args.vocab_size, model_args.dim)
        self.register_buffer("rope_cache", self._precompute_rope_cache(), persistent=False)
        self.layers = nn.ModuleDict()
        for layer_id in range(model_args.n_layers):
            self.layers[str(layer_id)] = self.build_layer(layer_id, model_args)
        self.norm = nn.RMSNorm(model_args.dim, eps=model_args.norm_eps)
        self.output = nn.Linear(model_args.dim, model_args.vocab_size, bias=False)
        self.tie_weights()

    def build_layer(self, layer_id: int, args: Qwen2ModelArgs) -> nn.Module:
        return TransformerBlock(layer_id, args)

    def tie_weights(self) -> None:
        """Makes the output layer's weight the embedding's, if ``enable_weight_tying`` says so."""
        if self.model_args.enable_weight_tying:
            assert self.tok_embeddings is not None
            assert self.output is not None
            self.output.weight = self.tok_embeddings.weight

    def init_weights(self, buffer_device: torch.device | None = None) -> None:
        """Draws the weights, and computes RoPE on ``buffer_device``."""
        with torch.device(buffer_device or self.rope_cache.device):
            self.rope_cache = self._precompute_rope_cache()
        # A model built on the meta device loses its tie when it is materialised.
        self.tie_weights()
        if self.tok_embeddings is not None:
            nn.init.normal_(self.tok_embeddings.weight)
        for layer in self.layers.values():
            layer.init_weights(buffer_device)
        if self.norm is not None:
            self.norm.reset_parameters()
        if self.output is not None:
            # Tied weights with a larger spread would make each token predict itself.
            std = INIT_STD if self.model_args.enable_weight_tying else self.model_args.dim**-0.5
            trunc_normal_(self.output.weight, mean=0.0, std=std, a=-OUTPUT_CUTOFF * std, b=OUTPUT_CUTOFF * std)

    def _precompute_rope_cache(self) -> torch.Tensor:
        args = self.model_args
        return precompute_rope_cache(args.head_dim, args.max_seq_len, args.rope_theta)

    def get_attention_masks(
        self,
        input_batch: torch.Tensor,
        tokenizer: BaseTokenizer,
        extra_inputs: dict[str, torch.Tensor] | None = None,
    ) -> AttentionMasksType:
        """The masks of flex and varlen attention, as torchtitan's qwen3 makes them."""
        return Qwen3Model.get_attention_masks(self, input_batch, tokenizer, extra_inputs)

    _get_flex_attention_masks = Qwen3Model._get_flex_attention_masks

    def forward(
        self,
        tokens: torch.Tensor,
        attention_masks: AttentionMasksType | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits ``[batch, seq_len, vocab_size]`` of ``tokens`` ``[batch, seq_len]``.

        A pipeline's later stages take the output of the stage before instead of tokens.
        """
        h = self.tok_embeddings(tokens) if self.tok_embeddings is not None else tokens
        h = self.run_layers(h, attention_masks, positions)
        h = self.norm(h) if self.norm is not None else h
        return self.output(h) if self.output is not None else h

    def run_layers(
        self,
        h: torch.Tensor,
        attention_masks: AttentionMasksType | None,
        positions: torch.Tensor | None,
    ) -> torch.Tensor:
        for layer in self.layers.values():
            h = layer(h, self.rope_cache, attention_masks, positions)
        return h
