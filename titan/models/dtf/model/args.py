"""The arguments of a DTF model."""

from __future__ import annotations

from dataclasses import dataclass

from titan.models.dynamic.args import CausallyRoutedModelArgs, SurpriseModelArgs


@dataclass
class DtfModelArgs(SurpriseModelArgs, CausallyRoutedModelArgs):
    """A Qwen2.5 of pairs of layers: the first decides which tokens the second computes (arXiv:2511.21408)."""

    prior_loss_weight: float = 0.05
    """Weight of the squared error of a decision layer's prior in predicting the layer's output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_layers % 2:
            raise ValueError(f"n_layers={self.n_layers}, expected an even number: layers are decision and dynamic")
