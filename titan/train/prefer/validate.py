"""Validation over pairs: the mean loss of all pairs, and how many of the chosen answers are preferred."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchtitan.tools import utils

from titan.train.chunked_loss import with_labels
from titan.train.data_parallel import StageLoss
from titan.train.prefer.pair_loss import PairLoss
from titan.train.prefer.sides import PAIRS, apart
from titan.train.validate import StageValidator


class PairValidator(StageValidator):
    """A :class:`StageValidator` whose loss is that of pairs; ``reference`` has the base's log-probabilities."""

    loss_fn: StageLoss

    def __init__(self, *arguments: Any, **parts: Any) -> None:
        super().__init__(*arguments, **parts)
        self.reference = torch.empty(0, 2)

    def _batch_sums(
        self, model_parts: list[nn.Module], input_dict: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        """The summed loss of a batch and the number of its pairs, float64 of shape (2,)."""
        moved, sides = apart({name: value.to(utils.device_type) for name, value in input_dict.items()})
        assert isinstance(self.loss_fn.loss_fn, PairLoss)
        self.loss_fn.loss_fn.look_at(sides, self.reference)
        batch = self.post_dataloading_process(moved, labels.to(utils.device_type), model_parts)
        batch = with_labels(batch, model_parts[0])
        inputs, labels, extra_inputs, extra_kwargs = batch
        with self.validation_context(), self.maybe_enable_amp:
            loss = self.loss_fn(model_parts[0](inputs, **extra_inputs, **extra_kwargs), labels)
        count = torch.tensor(float(len(input_dict[PAIRS])), dtype=torch.float64, device=loss.device)
        return torch.stack([loss.double(), count])
