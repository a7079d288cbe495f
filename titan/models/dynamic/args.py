"""What the models with routed layers are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from titan.models.flops import routed_parameters_and_flops
from titan.models.qwen2.model.args import Qwen2ModelArgs

CausalRouter = Literal["previous", "own"]
"""What chooses tokens in evaluation: a linear layer of a token and the one before it, or the family's own."""


@dataclass
class RoutedModelArgs(Qwen2ModelArgs):
    """A Qwen2.5 some of whose layers compute a share of the tokens."""

    capacity: float = 0.5
    """Share of a row's tokens that a routed layer computes while training."""
    causal_loss_weight: float = 0.01
    """Weight of the cross-entropy that teaches which tokens to choose without looking ahead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.capacity <= 1:
            raise ValueError(f"capacity={self.capacity}, expected above 0 and at most 1")
        for name, value in vars(self).items():
            if name.endswith("_loss_weight") and not value >= 0:
                raise ValueError(f"{name}={value}, expected 0 or above")

    @property
    def routed_layers(self) -> int:
        """How many layers have a router: each second one."""
        return self.n_layers // 2

    def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
        """Parameters, and operations a token of training, of which a routed layer spends its capacity."""
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
    """Width of the small network that foresees a layer's change, by the model's."""
    moving_average_window: int = 100
    """With how many tokens' change, its own included, a token's is compared."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior_factor <= 0:
            raise ValueError(f"prior_factor={self.prior_factor}, expected above 0")
        if self.moving_average_window < 1:
            raise ValueError(f"moving_average_window={self.moving_average_window}, expected 1 or more")
