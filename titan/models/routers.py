"""What a model with routers gives a trainer: it scales its auxiliary losses, is told the step, has statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh


class RoutedModel:
    """Mixed into a model whose layers have routers.

    ``auxiliary_scale`` multiplies the auxiliary losses, which are sums over rows. It is 1 / the rows of the global
    batch, so ranks and microbatches make no difference; None takes the mean over the present batch.
    """

    def set_auxiliary_scale(self, scale: float) -> None:
        """Sets the factor of each row's auxiliary losses."""
        raise NotImplementedError

    def begin_step(self, step: int, steps: int) -> None:
        """Says which step (from 1) of how many comes next, for what is scheduled."""

    def router_statistics(self) -> Mapping[str, torch.Tensor]:
        """The routers' last training step, by ``layer_<i>/<name>``; 0-dimensional tensors on the device."""
        raise NotImplementedError


def routed_parts(model_parts: Iterable[nn.Module]) -> list[Any]:
    """The parts of a model that have routers."""
    return [part for part in model_parts if isinstance(part, RoutedModel)]


class RouterStatistics:
    """A step's statistics, averaged over its microbatches, all ranks and all layers."""

    def __init__(self, parts: list[Any], mesh: DeviceMesh | None) -> None:
        self.parts = parts
        self.mesh = mesh
        self._sums: dict[str, torch.Tensor] = {}
        self._microbatches = 0

    def begin_step(self) -> None:
        self._sums, self._microbatches = {}, 0

    def add_microbatch(self) -> None:
        """Adds the statistics of the last training pass, without waiting for the device."""
        self._microbatches += 1
        for part in self.parts:
            for name, value in part.router_statistics().items():
                self._sums[name] = self._sums[name] + value if name in self._sums else value

    def read(self) -> dict[str, float]:
        """Each layer's by ``layer_<i>/<name>``, and the mean over layers by ``<name>``; all ranks call it.

        There is one transfer from the device, however many statistics there are.
        """
        if not self._sums:
            return {}
        stacked = torch.stack([value.float() for value in self._sums.values()]) / self._microbatches
        if self.mesh is not None:
            torch.distributed.all_reduce(stacked, group=self.mesh.get_group())
            stacked = stacked / self.mesh.size()
        by_layer = dict(zip(self._sums, stacked.tolist(), strict=True))
        named: dict[str, list[float]] = {}
        for name, value in by_layer.items():
            named.setdefault(name.rpartition("/")[2], []).append(value)
        return by_layer | {name: sum(values) / len(values) for name, values in named.items()}
