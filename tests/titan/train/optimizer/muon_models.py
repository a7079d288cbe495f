"""A model with each kind of weight that Muon meets, and the optimizer that a stage has for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torchtitan.components.optimizer import OptimizersContainer, build_optimizers
from torchtitan.config import JobConfig

from titan.train.optimizer.groups import with_parameter_groups
from titanflow.config.keys.optimizer import OptimizerAdditions

GROUPS = {"router": ("router",)}


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(10, 6)
        self.tall = nn.Linear(3, 5, bias=False)
        self.norm = nn.LayerNorm(6)
        self.router = nn.Linear(4, 4, bias=False)
        self.score = nn.Linear(6, 1, bias=False)
        self.experts = nn.ParameterDict({"w1": torch.randn(4, 6, 8), "mlp1_bias": torch.randn(4, 6)})


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings, self.output = nn.Embedding(12, 6), nn.Linear(6, 12, bias=False)
        self.layers = nn.ModuleDict({"0": Layer(), "1": Layer()})


MATRICES = {f"layers.{layer}.{name}" for layer in (0, 1) for name in ("wide.weight", "tall.weight", "router.weight")}
MATRICES |= {"layers.0.experts.w1", "layers.1.experts.w1"}


def model_of(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model()


def config_of(**settings: Any) -> Any:
    config = JobConfig().optimizer
    values = {"name": "Muon", "lr": 0.02, "implementation": "foreach", **settings}
    for name, value in {**vars(OptimizerAdditions()), **values}.items():
        setattr(config, name, value)
    return config


def built(
    model: nn.Module, build: Any = build_optimizers, replicas: DeviceMesh | None = None, **settings: Any
) -> OptimizersContainer[Any]:
    """The optimizer; ``replicas`` are DDP's."""
    config = config_of(**settings)
    grouped: Any = with_parameter_groups(build, config, GROUPS)
    degrees = {"dp_replicate_enabled": replicas is not None, "fsdp_enabled": False}
    parallel_dims = SimpleNamespace(**degrees, get_mesh={"dp_replicate": replicas}.get)
    container: OptimizersContainer[Any] = grouped([model], config, parallel_dims, None)
    return container


def gradients(model: nn.Module, step: int) -> dict[str, torch.Tensor]:
    """Whole gradients that depend on the name and the step alone, so that all ranks draw the same."""
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(one.shape, generator=generator) for name, one in model.named_parameters()}
