"""What a mixture of experts keeps beside its weights: how many tokens each expert had, and a bias that evens them out.

The bias is no parameter: before each step torchtitan moves it by the counts since the last one
(auxiliary-loss-free load balancing, arXiv:2408.15664).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torchtitan.models.moe.moe import MoE


def mixtures(model_parts: Iterable[nn.Module]) -> list[MoE]:
    """The layers that are mixtures of experts."""
    return [module for part in model_parts for module in part.modules() if isinstance(module, MoE)]


@contextmanager
def uncounted(model_parts: Iterable[nn.Module]) -> Iterator[None]:
    """Lets the tokens of the forward passes within count for nothing.

    torchtitan counts those of a validation too, so that it would move the next step's biases, and a run that was
    resumed after one would train on another way than the uninterrupted one.
    """
    counts = [layer.tokens_per_expert for layer in mixtures(model_parts)]
    before = [count.clone() for count in counts]
    yield
    with torch.no_grad():
        for count, kept in zip(counts, before, strict=True):
            count.copy_(kept)


def keep_biases(model: nn.Module) -> None:
    """Leaves the biases as they are from now on: they are the base's, of which a stage with adapters saves nothing."""
    for layer in mixtures([model]):
        layer.load_balance_coeff = None
