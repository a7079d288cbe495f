"""What a model with routers asks of a trainer: to scale its auxiliary losses, tell the step and read statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh


class RoutedModel:
    """Mixed into a model whose layers have routers.

    ``auxiliary_scale`` multiplies the auxiliary losses, which are sums over rows: 1 / the rows of the global batch,
    so that neither the number of ranks nor of microbatches changes them; None takes the mean over the batch in hand.
    """

    def set_auxiliary_scale(self, scale: float) -> None:
        """Sets what the auxiliary losses of each row are multiplied by."""
        raise NotImplementedError

    def begin_step(self, step: int, steps: int) -> None:
        """Tells which step, from 1, of how many is next: for what is scheduled."""

    def router_statistics(self) -> Mapping[str, torch.Tensor]:
        """What the routers did in the last training step, by ``layer_<i>/<name>``; 0-dimensional, on the device."""
        raise NotImplementedError


def routed_parts(model_parts: Iterable[nn.Module]) -> list[Any]:
    """Those of a model's parts that have routers."""
    return [part for part in model_parts if isinstance(part, RoutedModel)]


class RouterStatistics:
    """The mean statistics of a step: of its microbatches, of all ranks, and of all layers."""

    def __init__(self, parts: list[Any], mesh: DeviceMesh | None) -> None:
        self.parts = parts
        self.mesh = mesh
        self._sums: dict[str, torch.Tensor] = {}
        self._microbatches = 0

    def begin_step(self) -> None:
        """Forgets the step before."""
        self._sums, self._microbatches = {}, 0

    def add_microbatch(self) -> None:
        """Takes what the routers did in the last training pass; nothing is waited for."""
        self._microbatches += 1
        for part in self.parts:
            for name, value in part.router_statistics().items():
                self._sums[name] = self._sums[name] + value if name in self._sums else value

    def read(self) -> dict[str, float]:
        """Each layer's by ``layer_<i>/<name>``, and the mean over layers by ``<name>``; all ranks call it.

        One transfer from the device, whatever their number.
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
