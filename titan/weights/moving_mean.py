"""The exponential mean of a stage's weights over its steps (``training.ema``).

A checkpoint's model is the mean, and the weights that training goes on with lie beside it, under ``trained``. So
whatever reads a checkpoint (export, the next stage, an evaluation) has the mean without knowing of it; only a resume
reads both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.stateful import Stateful
from torchtitan.components.checkpoint import MODEL

from titan.models.lora import local, plain_name
from titanflow.runs.checkpoints import TRAINED


class MovingMean:
    """The mean of the trained weights, of each step's with ``decay`` times the weight of the next one's.

    After step t it is the sum of ``decay ** (t - i) * weights[i]`` over the steps i from 1 to t, divided by the sum of
    these factors. What training began with has no part in it. It is kept in fp32, or in the weights' own type if that
    is wider, and sharded as they are. Frozen weights and buffers have no mean: they are those of the last step.

    Args:
        parts: the model's parts, as they are trained.
        weights: what a checkpoint holds of the model.
        decay: between 0 and 1.
    """

    def __init__(self, parts: list[nn.Module], weights: Stateful, decay: float) -> None:
        self.decay = decay
        self._weights = weights
        self._means: dict[str, torch.Tensor] = {}
        self._pairs: dict[nn.Parameter, torch.Tensor] = {}
        for name, weight in (item for part in parts for item in part.named_parameters(remove_duplicate=False)):
            if weight.requires_grad:
                # A tied weight has two names and one mean.
                if weight not in self._pairs:
                    wide = torch.promote_types(weight.dtype, torch.float32)
                    self._pairs[weight] = weight.detach().to(wide, copy=True)
                self._means[plain_name(name)] = self._pairs[weight]

    @property
    def states(self) -> dict[str, Stateful]:
        """What a checkpoint holds in place of the model: the mean, and the weights that are trained on."""
        return {MODEL: _Mean(self._weights, self._means), TRAINED: self._weights}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after ``step``, counted from 1."""
        share = (1 - self.decay) / (1 - self.decay**step)
        for weight, mean in self._pairs.items():
            local(mean).lerp_(local(weight).to(mean.dtype), share)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Lets the model compute with the mean; afterwards it has its own weights again, to the bit."""
        trained = [local(weight).detach().clone() for weight in self._pairs]
        self._set(local(mean) for mean in self._pairs.values())
        try:
            yield
        finally:
            self._set(iter(trained))

    @torch.no_grad()
    def _set(self, values: Iterator[torch.Tensor]) -> None:
        for weight, value in zip(self._pairs, values, strict=True):
            local(weight).copy_(value)


class _Mean(Stateful):
    """The model's part of a checkpoint, with the mean of each weight that has one."""

    def __init__(self, weights: Stateful, means: dict[str, torch.Tensor]) -> None:
        self.weights = weights
        self.means = means

    def state_dict(self) -> dict[str, Any]:
        return {key: self.means.get(key, value) for key, value in self.weights.state_dict().items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: torch loads into the tensors of :meth:`state_dict`."""
