"""Mixture-of-Depths (Raposo et al. 2024, arXiv:2404.02258): layers that a token may bypass.

For scores ``r = w·x`` and the ``k`` highest of each row, ``x' = x + σ(r)·f(x)`` for a selected token and ``x' = x``
for all others. Choosing the highest of a row looks ahead. A causal router learns that choice from the token and the
one before it, or a predictor from the token alone; in evaluation it chooses.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchtitan.models.utils import trunc_normal_

from titan.models.dynamic.auxiliary import choice_loss, choice_statistics, row_sum
from titan.models.dynamic.causal_router import build_causal_router, causal_logits, draw_causal_router
from titan.models.dynamic.model import DynamicModel, RoutedBlock
from titan.models.dynamic.routing import Selection, select_top, select_where
from titan.models.qwen2.model.model import INIT_STD, TransformerBlock

from .args import ModModelArgs


class Predictor(nn.Module):
    """Predicts a router's choice from the token alone: a hidden layer of half the width, and a logit."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, dim // 2)
        self.score = nn.Linear(dim // 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``[batch, seq_len]`` of ``x`` ``[batch, seq_len, dim]``; no gradient reaches ``x``."""
        return self.score(F.silu(self.down(x.detach()))).squeeze(-1)

    def init_weights(self) -> None:
        for linear in (self.down, self.score):
            trunc_normal_(linear.weight, mean=0.0, std=INIT_STD)
            nn.init.zeros_(linear.bias)


class ModBlock(RoutedBlock):
    """A layer with a router."""

    def __init__(self, layer_id: int, args: ModModelArgs) -> None:
        super().__init__(layer_id, args, args.capacity, 1 / args.routed_layers)
        self.router = nn.Linear(args.dim, 1, bias=False)
        is_own = args.causal_router == "own"
        self.predictor = Predictor(args.dim) if is_own else None
        self.causal_router = None if is_own else build_causal_router(args.dim)
        self.weights = {"aux": args.aux_loss_weight, "causal": args.causal_loss_weight, "z": args.z_loss_weight}

    def forward(
        self,
        x: torch.Tensor,
        rope_cache: torch.Tensor,
        attention_masks: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``[batch, seq_len, dim]`` to the same; ``attention_masks`` is for dense layers and unused."""
        scores = self.router(x).squeeze(-1).float()
        if not self.training:
            selection = select_where(self.predicted(x, positions) > 0)
            return self.compute(x, torch.sigmoid(selection.take(scores)), selection, rope_cache, positions)
        selection = select_top(scores, self.share)
        gate = torch.sigmoid(selection.take(scores))
        output = self.compute(x, gate, selection, rope_cache, positions)
        return self.with_router_losses(output, scores, gate, selection, self.predicted(x, positions))

    def predicted(self, x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """Above 0 where evaluation computes a token, ``[batch, seq_len]``; no gradient reaches ``x``."""
        if self.causal_router is None:
            return self.predictor(x)
        return causal_logits(self.causal_router, x.detach(), positions)

    def with_router_losses(
        self,
        output: torch.Tensor,
        scores: torch.Tensor,
        gate: torch.Tensor,
        selection: Selection,
        predicted: torch.Tensor,
    ) -> torch.Tensor:
        """Attaches the losses of the router and of ``predicted``, its predicted choice, and keeps the statistics."""
        chosen = selection.mark(output.shape[1])
        losses = {
            "aux": row_sum(choice_loss(scores, chosen)),
            "causal": row_sum(choice_loss(predicted, chosen)),
            "z": row_sum(scores**2),
        }
        self.statistics = {
            **{f"{name}_loss": loss.detach() / output.shape[0] for name, loss in losses.items()},
            **choice_statistics(predicted, chosen),
            "gate": gate.detach().mean(),
        }
        return self.with_losses(output, {name: (self.weights[name], loss) for name, loss in losses.items()})

    def init_weights(self, buffer_device: torch.device | None = None) -> None:
        super().init_weights(buffer_device)
        trunc_normal_(self.router.weight, mean=0.0, std=INIT_STD)
        if self.causal_router is None:
            self.predictor.init_weights()
        else:
            draw_causal_router(self.causal_router)


class ModModel(DynamicModel):
    """A Qwen2.5 in which every ``route_every``-th layer is routed."""

    def build_layer(self, layer_id: int, args: ModModelArgs) -> nn.Module:
        return ModBlock(layer_id, args) if args.is_routed(layer_id) else TransformerBlock(layer_id, args)
