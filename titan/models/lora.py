"""Low-rank adapters (LoRA, arXiv:2106.09685) as a model converter of torchtitan.

An adapted layer stays a ``Linear`` under its own name, so parallel plans, checkpoints and exports of the base still
find it; its adapter is two more parameters, ``lora_a`` and ``lora_b``.
"""

from __future__ import annotations

import hashlib
import math
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.nn import functional
from torchtitan.protocols.model_converter import _registry_model_converter_cls, register_model_converter
from torchtitan.tools.logging import logger

from titan.models.experts import keep_biases
from titanflow.architectures.weights import without_layer
from titanflow.common.errors import ConfigError
from titanflow.config.checks.lora import LoraModules, find_modules, number_problems, scaling
from titanflow.config.keys.training import Lora

if TYPE_CHECKING:
    from torchtitan.config import JobConfig
    from torchtitan.distributed import ParallelDims
    from torchtitan.protocols.train_spec import TrainSpec

CONVERTER = "lora"
"""The converter's name in ``model.converters``."""
A, B = "lora_a", "lora_b"
WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")
"""Parts that activation checkpointing and torch.compile add to a module's name."""


class LoRALinear(nn.Linear):
    """A frozen linear layer and its adapter: ``x·Wᵀ + bias + scaling · dropout(x)·Aᵀ·Bᵀ``.

    ``lora_a`` has shape (rank, in), ``lora_b`` (out, rank). Tensor parallelism shards both by rows in a column-wise
    layer and replicates them in a row-wise one; the products are DTensor's.
    """

    def __init__(self, linear: nn.Linear, settings: Lora) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training
        self.scaling, self.dropout = scaling(settings), settings.dropout
        place = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.lora_a = nn.Parameter(torch.empty(settings.rank, self.in_features, **place))
        self.lora_b = nn.Parameter(torch.empty(self.out_features, settings.rank, **place))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The layer's output, of shape (…, out)."""
        dropped = functional.dropout(input, self.dropout, self.training) if self.dropout else input
        adapted = functional.linear(functional.linear(dropped, self.lora_a), self.lora_b)
        return functional.linear(input, self.weight, self.bias) + adapted * self.scaling

    def merged(self) -> torch.Tensor:
        """The equivalent plain layer's weight, in fp32, shape (out, in)."""
        update = self.lora_b.detach().float() @ self.lora_a.detach().float()
        return self.weight.detach().float() + self.scaling * update


class LoRAConverter:
    """Puts adapters into a model before it is parallelised, by the job config's ``lora`` section."""

    def __init__(self, job_config: JobConfig, parallel_dims: ParallelDims) -> None:
        self.settings: Lora = job_config.lora

    def convert(self, model: nn.Module) -> None:
        found = add_adapters(model, self.settings)
        model.init_weights = types.MethodType(_init_weights, model)
        logger.info(describe_trainable(model, found))

    def post_optimizer_hook(self, model: Any) -> None:
        """Nothing follows a step."""


def register_converter() -> None:
    """Makes the converter known to torchtitan."""
    if CONVERTER not in _registry_model_converter_cls:
        register_model_converter(LoRAConverter, CONVERTER)


def add_adapters(model: nn.Module, settings: Lora) -> LoraModules:
    """Replaces the target layers by :class:`LoRALinear` and freezes everything but the modules to save.

    Raises:
        ConfigError: a pattern that matches nothing, or a module that can't be adapted.
    """
    modules = dict(model.named_modules())
    # A subclass may compute something else, which an adapted layer would drop.
    linears = [name for name, module in modules.items() if type(module) is nn.Linear]
    own = {name for name, module in modules.items() if next(module.parameters(recurse=False), None) is not None}
    others = [name for name in modules if name in own and name not in linears]
    tied = bool(getattr(model.model_args, "enable_weight_tying", False))
    found, problems = find_modules(settings, linears, others, tied)
    problems = number_problems(settings) or problems
    if problems:
        raise ConfigError(problems)
    model.requires_grad_(False)
    for name in found.targets:
        above, _, own_name = name.rpartition(".")
        setattr(modules[above], own_name, LoRALinear(modules[name], settings))
    for name in found.saved:
        modules[name].requires_grad_(True)
    keep_biases(model)
    return found


def adapted_modules(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The adapted layers with their names in a checkpoint."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield plain_name(name), module


def plain_name(name: str) -> str:
    """A module's or parameter's name as it is in a checkpoint."""
    for wrapper in WRAPPERS:
        name = f"{name}.".replace(f".{wrapper}", ".").removeprefix(wrapper)[:-1]
    return name


def is_adapter(key: str) -> bool:
    """Whether a checkpoint's key is one of an adapter's two tensors."""
    return key.rpartition(".")[2] in (A, B)


def merged_state(
    model: nn.Module, keep: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
) -> dict[str, torch.Tensor]:
    """The weights of an equivalent model without adapters; its own state dict if it has none.

    ``keep`` gets each merged weight and returns where it is to lie.
    """
    merged = {f"{name}.weight": keep(module.merged()) for name, module in adapted_modules(model)}
    return {key: merged.get(key, value) for key, value in model.state_dict().items() if not is_adapter(key)}


def init_adapters(model: nn.Module) -> None:
    """Draws each A as peft does (Kaiming-uniform, a=√5) and zeroes each B, so the model computes what it did.

    An adapter's values depend on the seed and its name alone, however the model is sharded.
    """
    for name, module in adapted_modules(model):
        drawn = torch.empty(tuple(module.lora_a.shape))
        generator = torch.Generator().manual_seed(_seed(torch.initial_seed(), name))
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        with torch.no_grad():
            local(module.lora_a).copy_(drawn[shard_slices(module.lora_a)])
            local(module.lora_b).zero_()


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a data-parallel rank's dropout at a step."""
    return _seed(seed, step, rank)


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big", signed=True)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor on this rank; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_slices(like: torch.Tensor) -> tuple[slice, ...]:
    """The part of the whole tensor that this rank holds of ``like``."""
    if not isinstance(like, DTensor):
        return tuple(slice(0, size) for size in like.shape)
    sizes, offsets = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    return tuple(slice(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))


def trainable_parameters(spec: TrainSpec, job_config: JobConfig) -> int:
    """How many parameters a stage trains."""
    with torch.device("meta"):
        model = spec.model_cls(spec.model_args[job_config.model.flavor])
    add_adapters(model, job_config.lora)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def describe_trainable(model: nn.Module, found: LoraModules) -> str:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    own = sum(parameter.numel() for name, parameter in model.named_parameters() if not is_adapter(name))
    saved = f"; whole: {_counted(found.saved)}" if found.saved else ""
    return (
        f"LoRA: {trained:,} trainable parameters, {trained / own:.2%} of the model's {own:,}; "
        f"adapters in {_counted(found.targets)}{saved}"
    )


def _counted(names: list[str]) -> str:
    counts = Counter(map(without_layer, names))
    return ", ".join(name if count == 1 else f"{count}× {name}" for name, count in counts.items())


def _init_weights(self: nn.Module, buffer_device: torch.device | None = None) -> None:
    type(self).init_weights(self, buffer_device=buffer_device)
    init_adapters(self)
