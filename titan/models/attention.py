"""torchtitan's scaled dot product attention, with what it lacks: a mask and dropout."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torchtitan.models.attention import ScaledDotProductAttentionWrapper

# The CPU's own kernel is named flash attention too; CUDA's takes no mask. CUDA's memory-efficient kernel does, but
# knows no grouped queries: hence keys and values are repeated.
MASKED_BACKENDS = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
]


def repeat_heads(keys: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values ``[batch, kv_heads, seq_len, head_dim]``, repeated for ``heads`` query heads."""
    repeats = heads // keys.shape[1]
    return keys if repeats == 1 else keys.repeat_interleave(repeats, dim=1)


class MaskedAttention(ScaledDotProductAttentionWrapper):
    """Causal or masked attention that drops a share of its weights in training; no parameters."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
        is_causal: bool = True,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attends.

        Args:
            q: ``[batch, heads, queries, head_dim]``.
            k: ``[batch, kv_heads, keys, head_dim]``; ``kv_heads`` divides ``heads``.
            v: as ``k``.
            scale: of the scores; 1/√head_dim unless given.
            enable_gqa: whether ``kv_heads`` may be fewer than ``heads``.
            is_causal: whether a query sees no later key; a mask takes its place.
            mask: bool, broadcast to ``[batch, heads, queries, keys]``: the keys that a query sees.
        """
        if isinstance(q, DTensor):
            # Under tensor parallelism a rank has some of the heads, and heads don't depend on each other.
            local = (one.to_local() for one in (q, k, v))
            output = self(*local, scale=scale, enable_gqa=enable_gqa, is_causal=is_causal, mask=mask)
            return DTensor.from_local(output, q.device_mesh, q.placements, run_check=False)
        dropped = self.dropout.p if self.training else 0.0
        if mask is None and not dropped:
            return super().forward(q, k, v, scale=scale, enable_gqa=enable_gqa, is_causal=is_causal)
        if enable_gqa:
            k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        with sdpa_kernel(MASKED_BACKENDS, set_priority=True):
            return scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropped, is_causal=is_causal and mask is None, scale=scale
            )
