"""Auxiliary losses that are trained and not reported as the loss: their gradient joins where they arise.

So they work with activation checkpointing, with layers on several pipeline stages and with any loss function, and
can't be counted twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812


class _Attached(torch.autograd.Function):
    """The identity of ``x``, whose backward pass also sends ``scale`` to ``loss``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, loss: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        ctx.like = (loss.dtype, loss.device)
        # A view would do, but FSDP warns of a layer that returns one.
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        dtype, device = ctx.like
        return gradient, torch.full((), ctx.scale, dtype=dtype, device=device), None


def attach_loss(x: torch.Tensor, loss: torch.Tensor, scale: float) -> torch.Tensor:
    """Returns ``x``, on whose way back ``scale · loss`` is minimised too.

    Args:
        x: part of the model's output's graph.
        loss: ``[]``, the sum over the rows in hand.
        scale: see :class:`titan.models.routers.RoutedModel`.
    """
    return _Attached.apply(x, loss, scale)


def row_sum(values: torch.Tensor) -> torch.Tensor:
    """Of values ``[batch, seq_len]`` the mean over each row's tokens, summed over the rows."""
    return values.float().mean(1).sum()


def choice_loss(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy ``[batch, seq_len]`` of ``logits`` against the bool choice."""
    return F.binary_cross_entropy_with_logits(logits.float(), chosen.float(), reduction="none")


def choice_statistics(logits: torch.Tensor, chosen: torch.Tensor) -> dict[str, torch.Tensor]:
    """How many tokens were ``chosen`` (bool ``[batch, seq_len]``), and what the sign of ``logits`` says of it."""
    predicted = logits > 0
    return {
        "selected_fraction": chosen.float().mean(),
        "predicted_fraction": predicted.float().mean(),
        "predictor_accuracy": (predicted == chosen).float().mean(),
    }
