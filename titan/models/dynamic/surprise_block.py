"""A layer whose tokens compete by how surprising they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from titan.models.qwen2.model.args import Qwen2ModelArgs
from titan.models.remote_code.surprise import Surprise, SurpriseRouter, effective

from .auxiliary import choice_loss, choice_statistics, row_sum
from .model import RoutedBlock


class SurpriseBlock(RoutedBlock):
    """A routed layer with a :class:`~titan.models.remote_code.surprise.SurpriseRouter`."""

    def __init__(self, layer_id: int, args: Qwen2ModelArgs, share: float, loss_share: float) -> None:
        super().__init__(layer_id, args, share, loss_share)
        self.router = self.build_router(args)

    def build_router(self, args: Qwen2ModelArgs) -> SurpriseRouter:
        return SurpriseRouter(args.moving_average_window)

    def surprise_statistics(
        self,
        surprise: Surprise,
        static: torch.Tensor,
        change: torch.Tensor,
        betas: Mapping[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Means over tokens, and the router's effective parameters."""
        means = {
            "S_CE": surprise.expected,
            "S_CU": surprise.unexpected,
            "G_cont": surprise.score,
            "D_st": static,
            "D_ch": change,
            **betas,
            "o_ce": effective(self.router.o_ce),
            "m_cu": effective(self.router.m_cu),
        }
        return {name: value.detach().mean() for name, value in means.items()}

    def causal_loss(self, logits: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy of ``logits`` against the bool ``chosen``, both ``[batch, seq_len]``, and its statistics."""
        loss = row_sum(choice_loss(logits, chosen))
        return loss, {"causal_loss": loss.detach() / logits.shape[0], **choice_statistics(logits, chosen)}

    def init_weights(self, buffer_device: torch.device | None = None) -> None:
        super().init_weights(buffer_device)
        self.router.init_weights()
