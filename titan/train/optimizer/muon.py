"""Muon for the matrices of a model's layers, and AdamW for all else, in one optimizer.

torch's own Muon takes plain matrices alone. Here ranks may share a matrix, and a tensor may hold one for each expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

# Private, because torch's Muon would run them on the part of a matrix that a rank holds.
from torch.optim._muon import DEFAULT_A, DEFAULT_B, DEFAULT_C, EPS, _adjust_lr, _zeropower_via_newtonschulz

from titan.models.lora import local, shard_slices

Group = dict[str, Any]


class MuonWithAdamW(torch.optim.Optimizer):
    """Steps the tensors of ``matrices`` as torch's Muon does, and those of ``adamw`` by that optimizer.

    A tensor has shape (rows, columns), or (experts, rows, columns): then each expert's matrix is taken by itself. To
    schedules and checkpoints the two are one optimizer, with the groups and the state of both.

    Args:
        matrices: groups of parameters, each with its ``lr``.
        adamw: the optimizer of all other parameters; it may have none.
        settings: ``weight_decay``, ``momentum``, ``nesterov``, ``ns_steps`` and ``adjust_lr_fn``, as torch's Muon has.
        replicas: DDP's ranks, each of which has all weights and gradients; None if there are none.
    """

    def __init__(
        self,
        matrices: list[Group],
        adamw: torch.optim.Optimizer,
        settings: dict[str, Any],
        replicas: dist.ProcessGroup | None = None,
    ) -> None:
        self.adamw, self.replicas = adamw, replicas
        coefficients = (DEFAULT_A, DEFAULT_B, DEFAULT_C)
        super().__init__(matrices, {**settings, "ns_coefficients": coefficients, "eps": EPS})
        # The rate of AdamW comes first: it is `optimizer.lr`, which is logged.
        self.param_groups[:0] = adamw.param_groups
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        """Gives AdamW its groups and state; loading a checkpoint makes new ones."""
        self.adamw.state = self.state
        self.adamw.param_groups = [group for group in self.param_groups if "ns_steps" not in group]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; returns what ``closure`` returns, if it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if "ns_steps" in group:
                self._step_matrices(group)
        self.adamw.step()
        return loss

    def _step_matrices(self, group: Group) -> None:
        updates = ((one, self._update(one, group)) for one in group["params"] if one.grad is not None)
        for parameter, direction in orthogonal(updates, group, self.replicas):
            weight = local(parameter)
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            rate = _adjust_lr(group["lr"], group["adjust_lr_fn"], parameter.shape[-2:])
            weight.add_(direction, alpha=-rate)

    def _update(self, parameter: torch.Tensor, group: Group) -> torch.Tensor:
        """The gradient with momentum, sharded as the parameter; in bfloat16, in which it is made orthogonal."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if isinstance(gradient, DTensor) and isinstance(parameter, DTensor):
            # A replicated parameter's gradient may still have to be summed.
            gradient = gradient.redistribute(parameter.device_mesh, parameter.placements)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update: torch.Tensor = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        # A copy even of bfloat16: torch's function divides its argument in place.
        return update.to(torch.bfloat16, copy=True)


Pair = tuple[torch.Tensor, torch.Tensor]


def orthogonal(updates: Iterable[Pair], group: Group, replicas: dist.ProcessGroup | None = None) -> Iterator[Pair]:
    """Each parameter with this rank's part of its orthogonal update, in bfloat16.

    A matrix that ranks share is gathered whole; one that ``replicas`` hold lies whole on each of them. One of them
    computes it and hands it to the others, so that as many matrices as there are ranks are computed at a time.
    """
    for mesh, pairs in groupby(updates, key=lambda pair: _shared_by(pair[1])):
        # Along the other dimensions of the mesh, ranks repeat the work.
        ranks = replicas if mesh is None else mesh.get_group(max(range(mesh.ndim), key=mesh.size))
        if ranks is None:
            for parameter, update in pairs:
                yield parameter, _orthogonal(local(update), group)
            continue
        rank = dist.get_rank(ranks)
        while some := list(islice(pairs, dist.get_world_size(ranks))):
            mine: torch.Tensor | None = None
            for owner, (_, update) in enumerate(some):
                whole = update.full_tensor() if isinstance(update, DTensor) else update
                mine = whole if owner == rank else mine
            mine = None if mine is None else _orthogonal(mine, group)
            for owner, (parameter, update) in enumerate(some):
                is_mine = owner == rank and mine is not None
                direction = mine if is_mine else torch.empty(update.shape, dtype=update.dtype, device=update.device)
                assert direction is not None
                dist.broadcast(direction, group=ranks, group_src=owner)
                yield parameter, direction[shard_slices(parameter)]


def _shared_by(update: torch.Tensor) -> Any:
    """The mesh of the ranks that share the tensor's matrices; None if each matrix lies whole on this rank."""
    if not isinstance(update, DTensor):
        return None
    # Experts that are shared out stay whole.
    is_whole = all(one.is_replicate() or (update.ndim == 3 and one.is_shard(0)) for one in update.placements)
    return None if is_whole else update.device_mesh


def _orthogonal(update: torch.Tensor, group: Group) -> torch.Tensor:
    """The nearest orthogonal matrix, by Newton–Schulz; of three dimensions that of each matrix in the first."""
    settings = group["ns_coefficients"], group["ns_steps"], group["eps"]
    if update.ndim == 2:
        return _zeropower_via_newtonschulz(update, *settings).contiguous()
    found = torch.empty_like(update)
    for number, one in enumerate(update):
        found[number] = _zeropower_via_newtonschulz(one, *settings)
    return found
