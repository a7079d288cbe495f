"""TDTF, named STT in its paper (arXiv:2511.21408): a teacher chooses tokens in training, a student in use.

Every second layer is routed. In training its teacher computes the whole layer without a gradient,
``Δ = Block(x) − x``, and a transition network predicts Δ from ``Block(x)`` of the token before. A token's score ``G``
follows from how much it changes (``D_st = ‖Δ‖²/d``) and how much of that wasn't foreseen (``D_ch = ‖Δ − Δ̂‖²/d``). The
tokens with the highest scores are computed as they will be in use, among themselves; the others pass by. The student
learns that choice from the token and the one before, and makes it in evaluation.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from titan.models.dynamic.auxiliary import row_sum
from titan.models.dynamic.causal_router import build_causal_router, causal_logits, draw_causal_router
from titan.models.dynamic.model import DynamicModel
from titan.models.dynamic.routing import select_top, select_where
from titan.models.dynamic.surprise_block import SurpriseBlock
from titan.models.qwen2.model.model import TransformerBlock
from titan.models.remote_code.surprise import SmallSwiGLU, mean_squared_difference, shifted

from .args import TdtfModelArgs


class TdtfBlock(SurpriseBlock):
    """A routed layer with a teacher, a transition network and a student."""

    has_teacher = True
    """In training every token is computed once more, without a gradient."""

    def __init__(self, layer_id: int, args: TdtfModelArgs) -> None:
        super().__init__(layer_id, args, args.capacity, 1 / args.routed_layers)
        self.transition_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.transition = SmallSwiGLU(args.dim, args.prior_factor)
        self.student_norm = nn.RMSNorm(args.dim, eps=args.norm_eps)
        self.student = build_causal_router(args.dim)
        self.weights = {"tpn": args.tpn_loss_weight, "causal": args.causal_loss_weight}
        self.beta_start = args.beta_start
        # A tensor, so that a change of it needs no new compilation.
        self.register_buffer("beta", torch.full((), args.beta_start), persistent=False)

    def forward(
        self,
        x: torch.Tensor,
        rope_cache: torch.Tensor,
        attention_masks: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``[batch, seq_len, dim]`` to the same; ``attention_masks`` is the teacher's."""
        logits = self.student_logits(x, positions)
        if not self.training:
            selection = select_where(logits > 0)
            gate = torch.ones_like(selection.indices, dtype=x.dtype)
            return self.compute(x, gate, selection, rope_cache, positions)
        with torch.no_grad():
            dense = TransformerBlock.forward(self, x, rope_cache, attention_masks, positions)
        return self.taught(x, dense, logits, rope_cache, positions)

    def taught(
        self,
        x: torch.Tensor,
        dense: torch.Tensor,
        logits: torch.Tensor,
        rope_cache: torch.Tensor,
        positions: torch.Tensor | None,
    ) -> torch.Tensor:
        """Computes the tokens that are surprising by the teacher's ``dense`` output, and attaches the losses."""
        change = dense - x.detach()
        foreseen = shifted(self.transition(self.transition_norm(dense)), positions)
        squared_error = mean_squared_difference(foreseen, change)
        static, error = mean_squared_difference(change, torch.zeros_like(change)), squared_error.detach()
        surprise = self.router.surprise(static, error, self.beta, self.beta, positions)
        score = surprise.score
        selection = select_top(score, self.share)
        chosen = selection.take(score)
        # The gate is 1, but has the score's gradient, which trains o_ce and m_cu.
        output = self.compute(x, 1 + (chosen - chosen.detach()), selection, rope_cache, positions)
        tpn = row_sum(squared_error)
        causal, statistics = self.causal_loss(logits, selection.mark(x.shape[1]))
        betas = {"beta_ce": self.beta, "beta_cu": self.beta}
        self.statistics = {
            "tpn_loss": tpn.detach() / x.shape[0],
            **statistics,
            **self.surprise_statistics(surprise, static, error, betas),
        }
        return self.with_losses(output, {"tpn": (self.weights["tpn"], tpn), "causal": (self.weights["causal"], causal)})

    def student_logits(self, x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """Above 0 where the student would compute a token, ``[batch, seq_len]``; no gradient reaches ``x``."""
        return causal_logits(self.student, self.student_norm(x.detach()), positions)

    def init_weights(self, buffer_device: torch.device | None = None) -> None:
        super().init_weights(buffer_device)
        for norm in (self.transition_norm, self.student_norm):
            norm.reset_parameters()
        self.transition.init_weights()
        draw_causal_router(self.student)
        self.beta = torch.full((), self.beta_start, device=buffer_device or self.beta.device)


class TdtfModel(DynamicModel):
    """A Qwen2.5 in which every second layer is routed."""

    def build_layer(self, layer_id: int, args: TdtfModelArgs) -> nn.Module:
        return TdtfBlock(layer_id, args) if layer_id % 2 else TransformerBlock(layer_id, args)

    def begin_step(self, step: int, steps: int) -> None:
        beta = scheduled_beta(self.model_args, step, steps)
        for block in self.auxiliary_blocks():
            block.beta.fill_(beta)


def scheduled_beta(args: TdtfModelArgs, step: int, steps: int) -> float:
    """The sharpness at a step of 1 to ``steps``: after the warm-up half a cosine from start to end."""
    scheduled = max(1, steps - args.beta_warmup_steps)
    done = min(max((step - args.beta_warmup_steps) / scheduled, 0.0), 1.0)
    return args.beta_start + (1 - math.cos(math.pi * done)) / 2 * (args.beta_end - args.beta_start)
