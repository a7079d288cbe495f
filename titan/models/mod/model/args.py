"""The arguments of a Mixture-of-Depths model."""

from __future__ import annotations

from dataclasses import dataclass

from titan.models.dynamic.args import CausallyRoutedModelArgs


@dataclass
class ModModelArgs(CausallyRoutedModelArgs):
    """A Qwen2.5 in which every other layer computes a share of the tokens (Raposo et al. 2024, arXiv:2404.02258)."""

    capacity: float = 0.125
    route_every: int = 2
    """The last of every so many layers is routed: with 2 the second, fourth, …"""
    aux_loss_weight: float = 0.01
    """Weight of the cross-entropy between the router's scores and its own choice, which centres them around 0."""
    z_loss_weight: float = 1e-4
    """Weight of the mean squared score, which keeps the gate from saturating."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.route_every <= self.n_layers:
            raise ValueError(f"route_every={self.route_every}, expected 1 to n_layers={self.n_layers}")

    def is_routed(self, layer_id: int) -> bool:
        return (layer_id + 1) % self.route_every == 0

    @property
    def routed_layers(self) -> int:
        return self.n_layers // self.route_every
