"""What a mixture of experts keeps beside its weights: each expert's token count, and a bias that balances them.

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
    return [module for part in model_parts for module in part.modules() if isinstance(module, MoE)]


@contextmanager
def uncounted(model_parts: Iterable[nn.Module]) -> Iterator[None]:
    """Forward passes within this context don't change the experts' token counts.

    torchtitan counts validation's tokens too, and they would move the next step's biases. A run that resumed after a
    validation would then differ from an uninterrupted one.
    """
    counts = [layer.tokens_per_expert for layer in mixtures(model_parts)]
    before = [count.clone() for count in counts]
    yield
    with torch.no_grad():
        for count, kept in zip(counts, before, strict=True):
            count.copy_(kept)


def keep_biases(model: nn.Module) -> None:
    """Freezes the biases: they are the base's, and a stage with adapters doesn't save them."""
    for layer in mixtures([model]):
        layer.load_balance_coeff = None
