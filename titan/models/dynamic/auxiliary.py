"""Auxiliary losses that are trained but aren't part of the reported loss: their gradient joins where they arise.

This works with activation checkpointing, with layers on several pipeline stages and with any loss function, and never
counts a loss twice.
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
    """Returns ``x``, whose backward pass also minimises ``scale · loss``; ``x`` has to be part of the output's graph.

    ``loss`` is ``[]``, the sum over the batch's rows. For ``scale`` see :class:`titan.models.routers.RoutedModel`.
    """
    return _Attached.apply(x, loss, scale)


def row_sum(values: torch.Tensor) -> torch.Tensor:
    """The mean of ``[batch, seq_len]`` over each row's tokens, summed over the rows."""
    return values.float().mean(1).sum()


def choice_loss(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy ``[batch, seq_len]`` of ``logits`` against the bool choice."""
    return F.binary_cross_entropy_with_logits(logits.float(), chosen.float(), reduction="none")


def choice_statistics(logits: torch.Tensor, chosen: torch.Tensor) -> dict[str, torch.Tensor]:
    """How many tokens were ``chosen`` (bool ``[batch, seq_len]``), and how well the sign of ``logits`` predicts it."""
    predicted = logits > 0
    return {
        "selected_fraction": chosen.float().mean(),
        "predicted_fraction": predicted.float().mean(),
        "predictor_accuracy": (predicted == chosen).float().mean(),
    }
