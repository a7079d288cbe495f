"""Parameter groups with learning rates of their own: a router learns faster than the layers that it routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchtitan.components.optimizer import OptimizersContainer

from titan.models.lora import plain_name
from titanflow.common.errors import ConfigError, Problem

if TYPE_CHECKING:
    from torchtitan.protocols.train_spec import OptimizersBuilder

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}
"""What torchtitan's ``optimizer.name`` may be."""


def with_parameter_groups(
    build: OptimizersBuilder, group_lr: Mapping[str, float], groups: Mapping[str, Iterable[str]]
) -> OptimizersBuilder:
    """Wraps a family's ``build_optimizers_fn`` so that each group learns at its rate in ``group_lr``.

    ``groups`` has the names of each group's modules. Other groups are refused before
    (:func:`titanflow.config.checks.refused.rate_problems`).
    """
    if not group_lr:
        return build

    def build_grouped(model_parts: list[nn.Module], config: Any, parallel_dims: Any, *unused: Any) -> Any:
        if config.name not in OPTIMIZERS:
            raise ConfigError(Problem(f"found {config.name!r}", key="optimizer.name", expected=" or ".join(OPTIMIZERS)))
        settings = {
            "lr": config.lr,
            "betas": (config.beta1, config.beta2),
            "eps": config.eps,
            "weight_decay": config.weight_decay,
            "fused": config.implementation == "fused",
            "foreach": config.implementation == "foreach",
        }
        rates = {id(p): lr for part in model_parts for p, lr in _own_rates(part, group_lr, groups)}

        def grouped(parameters: list[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
            by_rate: dict[float, list[nn.Parameter]] = {config.lr: []}
            for parameter in parameters:
                by_rate.setdefault(rates.get(id(parameter), config.lr), []).append(parameter)
            members = [{"params": found, "lr": lr} for lr, found in by_rate.items() if found]
            return OPTIMIZERS[config.name](members, **settings)

        return OptimizersContainer(model_parts, grouped, settings)

    return build_grouped


def _own_rates(
    part: nn.Module, group_lr: Mapping[str, float], groups: Mapping[str, Iterable[str]]
) -> Iterable[tuple[nn.Parameter, float]]:
    """The parameters of groups with a learning rate of their own, each with its rate."""
    for name, parameter in part.named_parameters():
        modules = set(plain_name(name).split("."))
        for group, lr in group_lr.items():
            if modules & set(groups[group]):
                yield parameter, lr
