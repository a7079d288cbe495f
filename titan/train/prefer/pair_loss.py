"""The loss of a batch of pairs in torchtitan's form, a function of logits and labels."""

from __future__ import annotations

from typing import Any

import torch

from titan.train.prefer.loss import STATISTICS, answer_logps, pair_losses, statistics
from titan.train.prefer.sides import Sides
from titanflow.config.keys.training import Prefer


class PairLoss:
    """The summed loss of a batch's pairs; :meth:`look_at` says which pairs these are.

    ``sums`` adds up the :data:`titan.train.prefer.loss.STATISTICS` and, last, the number of pairs, until
    :meth:`begin` starts anew.
    """

    def __init__(self, prefer: Prefer) -> None:
        self.prefer = prefer
        self.sides: Sides | None = None
        self.reference: torch.Tensor | None = None
        self.begin()

    def begin(self) -> None:
        self.sums = torch.zeros(len(STATISTICS) + 1, dtype=torch.float64)

    def look_at(self, sides: Sides, reference: torch.Tensor) -> None:
        """Takes the next batch's sides; ``reference`` has the log-probabilities of all pairs, ``[pairs, 2]``."""
        self.sides, self.reference = sides, reference.index_select(0, sides.pairs)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert self.sides is not None
        assert self.reference is not None
        policy, tokens = answer_logps(logits, labels, self.sides)
        count = torch.tensor([float(len(policy))], dtype=torch.float64, device=policy.device)
        told = torch.cat([statistics(policy.detach(), self.reference, self.prefer.beta), count])
        self.sums = self.sums.to(told.device) + told
        return pair_losses(policy, self.reference, tokens, self.prefer).sum()


def build_pair_loss(job_config: Any, **parts: Any) -> PairLoss:
    return PairLoss(job_config.prefer)
