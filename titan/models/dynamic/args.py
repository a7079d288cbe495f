"""The arguments that models with routed layers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from titan.models.flops import routed_parameters_and_flops
from titan.models.qwen2.model.args import Qwen2ModelArgs

CausalRouter = Literal["previous", "own"]
"""How tokens are chosen in evaluation: by a linear layer of a token and the one before it, or the family's way."""


@dataclass
class RoutedModelArgs(Qwen2ModelArgs):
    """A Qwen2.5 with layers that compute a share of the tokens."""

    capacity: float = 0.5
    """Share of a row's tokens that a routed layer computes in training."""
    causal_loss_weight: float = 0.01
    """Weight of the cross-entropy that teaches the choice of tokens without looking ahead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.capacity <= 1:
            raise ValueError(f"capacity={self.capacity}, expected above 0 and at most 1")
        for name, value in vars(self).items():
            if name.endswith("_loss_weight") and not value >= 0:
                raise ValueError(f"{name}={value}, expected 0 or above")

    @property
    def routed_layers(self) -> int:
        """Every second layer has a router."""
        return self.n_layers // 2

    def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
        """Of a training token's operations a routed layer spends only its capacity."""
        return routed_parameters_and_flops(self, model, seq_len)


@dataclass
class CausallyRoutedModelArgs(RoutedModelArgs):
    """A routed model that can choose its tokens in evaluation in either of two ways."""

    causal_router: CausalRouter = "previous"
    """What chooses tokens in evaluation: `previous` looks at a token and the one before it, `own` is the family's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.causal_router not in get_args(CausalRouter):
            raise ValueError(f"causal_router={self.causal_router!r}, expected {' or '.join(get_args(CausalRouter))}")


@dataclass
class SurpriseModelArgs(RoutedModelArgs):
    """A Qwen2.5 in which every other layer computes the most surprising tokens."""

    prior_factor: float = 0.0625
    """Width of the small network that predicts a layer's change, as a share of the model's width."""
    moving_average_window: int = 100
    """How many tokens' changes, its own included, a token's change is compared with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior_factor <= 0:
            raise ValueError(f"prior_factor={self.prior_factor}, expected above 0")
        if self.moving_average_window < 1:
            raise ValueError(f"moving_average_window={self.moving_average_window}, expected 1 or more")
