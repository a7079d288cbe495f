"""The router that chooses tokens in evaluation: a linear layer of a token and the one before it, ``[2 · dim] → 1``.

In training it learns the choice of a row's highest scores, which looks ahead.
"""

from __future__ import annotations

import torch
from torch import nn
from torchtitan.models.utils import trunc_normal_

from titan.models.qwen2.model.model import INIT_STD
from titan.models.remote_code.surprise import shifted


def build_causal_router(dim: int) -> nn.Linear:
    """The layer; its first ``dim`` weights are for the token itself."""
    return nn.Linear(2 * dim, 1)


def causal_logits(router: nn.Linear, x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """Above 0 where evaluation computes a token, ``[batch, seq_len]``.

    ``x`` is ``[batch, seq_len, dim]``, detached where no gradient may reach the stream. ``positions`` are tokens' in
    their documents, None if each row is one. A document's first token has zeros before it.
    """
    return router(torch.cat([x, shifted(x, positions)], dim=-1)).squeeze(-1)


def draw_causal_router(router: nn.Linear) -> None:
    trunc_normal_(router.weight, mean=0.0, std=INIT_STD)
    nn.init.zeros_(router.bias)
