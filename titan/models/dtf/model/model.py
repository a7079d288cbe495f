"""DTF, named SDT in its paper (arXiv:2511.21408): pairs of layers; the first decides what the second computes.

A decision layer computes all tokens, ``H_post = Block(H)``, and its prior predicts the outcome. The dynamic layer's
router computes a score ``G`` in (0, 1) from how much each token has changed (``D_st = ‖H_post − H‖²/d``) and how much
of that wasn't foreseen (``D_ch = ‖H_post − H_prior‖²/d``). The tokens with the highest scores are computed, and gated
by it: ``H' = H_post + G·f(H_post)``. The score looks at no later token; only choosing a row's highest does. A causal
router learns that choice from ``H_post`` of the token and of the one before it, or a threshold on ``G`` does; in
evaluation it chooses.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from titan.models.dynamic.auxiliary import row_sum
from titan.models.dynamic.causal_router import build_causal_router, causal_logits, draw_causal_router
from titan.models.dynamic.model import AuxiliaryBlock, DynamicModel
from titan.models.dynamic.routing import select_top, select_where
from titan.models.dynamic.surprise_block import SurpriseBlock
from titan.models.qwen2.model.model import TransformerBlock
from titan.models.remote_code.surprise import SmallSwiGLU, Surprise, SurpriseRouter, effective, mean_squared_difference

from .args import DtfModelArgs

RAW_BETA_CE, RAW_BETA_CU = -0.3, -0.6
"""Through softplus 0.554 and 0.437."""
RAW_SLOPE = math.log(math.expm1(10))
"""Through softplus 10."""
THRESHOLD = 0.75


class DecisionBlock(AuxiliaryBlock):
    """A dense layer, and its prior: ``H_prior = H + SmallSwiGLU(RMSNorm(H))``."""

    def __init__(self, layer_id: int, args: DtfModelArgs) -> None:
        super().__init__(layer_id, args, 1 / args.routed_layers)
        self.prior_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.prior = SmallSwiGLU(args.dim, args.prior_factor)
        self.prior_loss_weight = args.prior_loss_weight

    def forward(
        self,
        x: torch.Tensor,
        rope_cache: torch.Tensor,
        attention_masks: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The layer's output ``[batch, seq_len, dim]``, and D_st and D_ch, fp32 ``[batch, seq_len]``."""
        post = super().forward(x, rope_cache, attention_masks, positions)
        # Detached: a stream pulled towards the layer's output, which builds on it, would diverge.
        held = x.detach()
        prior = held + self.prior(self.prior_norm(held))
        static, change = mean_squared_difference(post, x), mean_squared_difference(post, prior)
        if self.training:
            loss = row_sum(mean_squared_difference(prior, post.detach()))
            self.statistics = {"prior_loss": loss.detach() / x.shape[0]}
            post = self.with_losses(post, {"prior": (self.prior_loss_weight, loss)})
        return post, static, change

    def init_weights(self, buffer_device: torch.device | None = None) -> None:
        super().init_weights(buffer_device)
        self.prior_norm.reset_parameters()
        self.prior.init_weights()


class DtfRouter(SurpriseRouter):
    """Scores tokens with learned sharpness."""

    def __init__(self, window: int) -> None:
        super().__init__(window)
        for name, value in self.initial().items():
            setattr(self, name, nn.Parameter(torch.full((1,), value)))

    @staticmethod
    def initial() -> dict[str, float]:
        return {"beta_ce": RAW_BETA_CE, "beta_cu": RAW_BETA_CU}

    def forward(self, static: torch.Tensor, change: torch.Tensor, positions: torch.Tensor | None) -> Surprise:
        return self.surprise(static, change, effective(self.beta_ce), effective(self.beta_cu), positions)

    def init_weights(self) -> None:
        super().init_weights()
        for name, value in self.initial().items():
            nn.init.constant_(getattr(self, name), value)


class ThresholdRouter(DtfRouter):
    """Also learns the score from which on evaluation computes a token."""

    @staticmethod
    def initial() -> dict[str, float]:
        return {**DtfRouter.initial(), "slope": RAW_SLOPE, "threshold": THRESHOLD}

    def logits(self, score: torch.Tensor) -> torch.Tensor:
        """Above 0 where evaluation computes a token, ``[batch, seq_len]``; no gradient reaches ``score``."""
        return effective(self.slope) * (score.detach() - self.threshold.float())


class DynamicBlock(SurpriseBlock):
    """A layer that computes the tokens that surprised the decision layer before it."""

    def __init__(self, layer_id: int, args: DtfModelArgs) -> None:
        super().__init__(layer_id, args, args.capacity, 1 / args.routed_layers)
        self.causal_loss_weight = args.causal_loss_weight
        self.causal_router = None if args.causal_router == "own" else build_causal_router(args.dim)

    def build_router(self, args: DtfModelArgs) -> DtfRouter:
        kind = ThresholdRouter if args.causal_router == "own" else DtfRouter
        return kind(args.moving_average_window)

    def forward(
        self,
        x: torch.Tensor,
        static: torch.Tensor,
        change: torch.Tensor,
        rope_cache: torch.Tensor,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """From :class:`DecisionBlock`'s outputs to ``[batch, seq_len, dim]``."""
        surprise = self.router(static, change, positions)
        score = surprise.score
        logits = self.predicted(x, score, positions)
        if not self.training:
            selection = select_where(logits > 0)
            return self.compute(x, selection.take(score), selection, rope_cache, positions)
        selection = select_top(score, self.share)
        gate = selection.take(score)
        output = self.compute(x, gate, selection, rope_cache, positions)
        loss, statistics = self.causal_loss(logits, selection.mark(x.shape[1]))
        betas = {"beta_ce": effective(self.router.beta_ce), "beta_cu": effective(self.router.beta_cu)}
        self.statistics = {
            **statistics,
            **self.surprise_statistics(surprise, static, change, betas),
            "gate": gate.detach().mean(),
        }
        return self.with_losses(output, {"causal": (self.causal_loss_weight, loss)})

    def predicted(self, x: torch.Tensor, score: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """Above 0 where evaluation computes a token, ``[batch, seq_len]``; no gradient reaches ``x`` or ``score``."""
        if self.causal_router is None:
            return self.router.logits(score)
        return causal_logits(self.causal_router, x.detach(), positions)

    def init_weights(self, buffer_device: torch.device | None = None) -> None:
        super().init_weights(buffer_device)
        if self.causal_router is not None:
            draw_causal_router(self.causal_router)


class DtfModel(DynamicModel):
    """A Qwen2.5 of decision and dynamic layers in turn."""

    def build_layer(self, layer_id: int, args: DtfModelArgs) -> TransformerBlock:
        return DynamicBlock(layer_id, args) if layer_id % 2 else DecisionBlock(layer_id, args)

    def run_blocks(self, h: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None) -> torch.Tensor:
        layers = list(self.layers.values())
        for decision, dynamic in zip(layers[::2], layers[1::2], strict=True):
            h, static, change = decision(h, self.rope_cache, mask, positions)
            h = dynamic(h, static, change, self.rope_cache, positions)
        return h
