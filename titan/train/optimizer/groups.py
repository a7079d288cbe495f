"""Groups of parameters: learning rates of their own for routers, and Muon for the matrices of layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchtitan.tools.logging import logger

from titan.models.lora import plain_name
from titan.train.optimizer.muon import Group, MuonWithAdamW
from titanflow.architectures.weights import is_hidden_matrix
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.keys.optimizer import MUON

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torchtitan.protocols.train_spec import OptimizersBuilder

Named = Mapping[str, nn.Parameter]


def with_parameter_groups(
    build: OptimizersBuilder, settings: Any, groups: Mapping[str, Iterable[str]]
) -> OptimizersBuilder:
    """Wraps a family's ``build_optimizers_fn`` so that ``settings``, the config's ``optimizer``, may ask for more.

    Each group learns at its rate in ``group_lr``, and with the name Muon that optimizer steps the matrices. ``groups``
    has the names of each group's modules. Other groups are refused before
    (:func:`titanflow.config.checks.refused.optimizer_problems`).
    """
    if not settings.group_lr and settings.name != MUON:
        return build

    def build_grouped(model_parts: list[nn.Module], config: Any, parallel_dims: Any, *others: Any) -> Any:
        known = dataclasses.replace(config, name="AdamW") if config.name == MUON else config
        # What the family adds to a step, such as the balance of its experts, stays with its container.
        container: Any = build(model_parts, known, parallel_dims, *others)
        replicas = _replicas(parallel_dims) if settings.name == MUON else None
        container.optimizers = [
            _grouped(optimizer, _trained(part), settings, groups, replicas)
            for part, optimizer in zip(model_parts, container.optimizers, strict=True)
        ]
        return container

    return build_grouped


def _replicas(parallel_dims: Any) -> ProcessGroup | None:
    """The ranks of DDP, each of which holds all weights; under FSDP a weight itself knows who shares it."""
    if parallel_dims.fsdp_enabled or not parallel_dims.dp_replicate_enabled:
        return None
    return parallel_dims.get_mesh("dp_replicate").get_group()


def _trained(part: nn.Module) -> Named:
    return {plain_name(name): one for name, one in part.named_parameters() if one.requires_grad}


def _grouped(
    optimizer: torch.optim.Optimizer,
    trained: Named,
    settings: Any,
    groups: Mapping[str, Iterable[str]],
    replicas: ProcessGroup | None,
) -> torch.optim.Optimizer:
    """The ``optimizer`` of a model part with its parameters in groups; with Muon, both optimizers as one."""
    is_muon = settings.name == MUON
    matrices = {name: one for name, one in trained.items() if is_muon and is_hidden_matrix(name, one.shape)}
    others = {name: one for name, one in trained.items() if name not in matrices}
    optimizer.param_groups.clear()
    for members in _by_rate(others, settings.lr, settings.group_lr, groups):
        optimizer.add_param_group(members)
    if not is_muon:
        return optimizer
    if not matrices:
        # The schedule of one part is saved for all, with its list of rates.
        found = "found Muon, and a part of the model has no matrix in its layers"
        raise ConfigError(Problem(found, "optimizer.name", expected="AdamW, or layers in each stage of a pipeline"))
    logger.info(f"Muon: {_counted(matrices)}; AdamW: {_counted(others)}")
    rate = settings.lr if settings.muon_lr is None else settings.muon_lr
    muon = {
        "weight_decay": settings.weight_decay,
        "momentum": settings.muon_momentum,
        "nesterov": settings.muon_nesterov,
        "ns_steps": settings.muon_ns_steps,
        "adjust_lr_fn": settings.muon_adjust_lr_fn,
    }
    return MuonWithAdamW(_by_rate(matrices, rate, settings.group_lr, groups), optimizer, muon, replicas)


def _counted(parameters: Named) -> str:
    return f"{len(parameters)} tensors of {sum(one.numel() for one in parameters.values()):,} parameters"


def _by_rate(
    parameters: Named, lr: float, group_lr: Mapping[str, float], groups: Mapping[str, Iterable[str]]
) -> list[Group]:
    """The parameters by their learning rate: first those with ``lr``, then those of groups with a rate of their own."""
    found: dict[float, list[nn.Parameter]] = {lr: []}
    for name, parameter in parameters.items():
        modules = set(name.split("."))
        rates = [rate for group, rate in group_lr.items() if modules & set(groups[group])]
        found.setdefault(rates[0] if rates else lr, []).append(parameter)
    return [{"params": members, "lr": rate} for rate, members in found.items() if members]
