"""Losses of preference optimisation, of the log-probabilities of each pair's chosen and rejected answer.

All of a pair's values have the shape ``[pairs, 2]``: the chosen answer, then the rejected one.
"""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import logsigmoid
from torchtitan.components.loss import IGNORE_INDEX

from titan.train.chunked_loss import token_losses
from titan.train.prefer.sides import Sides
from titanflow.config.keys.training import Prefer


def answer_logps(predictions: torch.Tensor, labels: torch.Tensor, sides: Sides) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probability of each answer, summed over its trained tokens, and their number, each ``[pairs, 2]``.

    ``predictions`` are logits ``[rows, tokens, vocabulary]``, or a chunked head's losses of tokens, ``[rows, tokens]``;
    ``labels`` are ``[rows, tokens]`` with -100 where nothing is trained. The result is float32, as the sum of tokens'
    cross-entropies in a fine-tuning is.
    """
    losses = predictions if predictions.dim() == labels.dim() else token_losses(predictions, labels)
    losses = losses.full_tensor() if isinstance(losses, DTensor) else losses
    return sides.sums(-losses), sides.sums((labels != IGNORE_INDEX).float())


def pair_losses(policy: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor, prefer: Prefer) -> torch.Tensor:
    """The loss of each pair, ``[pairs]``.

    ``dpo`` is that of Rafailov et al. 2023 (arXiv:2305.18290), with ``label_smoothing`` the conservative one: the mean
    over labels that are wrong with this probability. ``ipo`` is equation 17 of Azar et al. 2023 (arXiv:2310.12036) on
    log-probabilities averaged over each answer's ``tokens``, as its authors have it.
    """
    ratios = policy - reference
    if prefer.loss == "ipo":
        chosen, rejected = (ratios / tokens.clamp(min=1)).unbind(1)
        return (chosen - rejected - 1 / (2 * prefer.beta)) ** 2
    margins = prefer.beta * (ratios[:, 0] - ratios[:, 1])
    smoothing = prefer.label_smoothing
    return -(1 - smoothing) * logsigmoid(margins) - smoothing * logsigmoid(-margins)


STATISTICS = (
    *("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"),
    *("logps/chosen", "logps/rejected", "logps/kl"),
)
"""The names of :func:`statistics`' columns."""


@torch.no_grad()
def statistics(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """The sums over pairs of :data:`STATISTICS`, float64 ``[7]``; each pair's own mean over its two sides in ``kl``.

    A reward is β times an answer's log-probability over the reference's, in nats. ``kl`` is the mean of these
    differences without β. It estimates how far the policy has moved on the data's answers; since these aren't the
    policy's own, it may be below 0.
    """
    policy, reference = policy.double(), reference.double()
    rewards = beta * (policy - reference)
    margins = rewards[:, 0] - rewards[:, 1]
    kl = (policy - reference).mean(1)
    columns = (rewards[:, 0], rewards[:, 1], margins, (margins > 0).double(), policy[:, 0], policy[:, 1], kl)
    return torch.stack([column.sum() for column in columns])
