"""Makes every kind of data parallelism compute what one process computes.

torchtitan divides the loss by the tokens of all ranks, so gradients must be summed, never averaged.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torchtitan.models.attention import ScaledDotProductAttentionWrapper
from torchtitan.tools import utils

from titan.models.attention import MaskedAttention
from titan.models.lora import adapted_modules, plain_name

if TYPE_CHECKING:
    from torchtitan.components.loss import LossFunction
    from torchtitan.config import JobConfig
    from torchtitan.distributed import ParallelDims
    from torchtitan.protocols.train_spec import LossFunctionBuilder, ParallelizeFunction


def equal_to_one_process(parallelize: ParallelizeFunction) -> ParallelizeFunction:
    def wrapped(model: nn.Module, parallel_dims: ParallelDims, job_config: JobConfig) -> nn.Module:
        # FSDP changes the model's class.
        model_cls, model_args = type(model), getattr(model, "model_args", None)
        if utils.device_type == "cpu" and parallel_dims.tp_enabled:
            # torch has no attention of sharded heads on a CPU, so each rank attends to its own.
            for module in list(model.modules()):
                if type(getattr(module, "inner_attention", None)) is ScaledDotProductAttentionWrapper:
                    module.inner_attention = MaskedAttention()
        trained = {plain_name(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
        parallelized = parallelize(model, parallel_dims, job_config)
        freeze_all_but(parallelized, trained)
        if utils.device_type == "cpu":
            sum_fsdp_gradients(parallelized)
            # With adapters nothing else is drawn, and they are drawn alike on any number of ranks.
            has_adapters = next(adapted_modules(parallelized), None) is not None
            if model_args is not None and not parallel_dims.pp_enabled and not has_adapters:
                initialize_whole(parallelized, model_cls, model_args, parallel_dims.world_size > 1)
        return parallelized

    return wrapped


class ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.factor, None


class StageLoss:
    """A family's loss, whose gradients are sums over all ranks divided by the tokens of all ranks.

    torchtitan 0.2.2 gets two cases wrong, and with them the gradients' norm and its clipping. DDP divides by the
    number of ranks, which torchtitan undoes for FSDP alone; ``ranks`` undoes it here. A pipeline's backward pass
    starts from the loss before it is divided by the tokens; the trainer sets ``tokens`` for it.
    """

    def __init__(self, loss_fn: LossFunction, ranks: int = 1) -> None:
        self.loss_fn = loss_fn
        self.ranks = ranks
        self.tokens = 1.0

    def __call__(self, predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The summed loss of one batch, shape ``[]``; ``labels`` of -100 count nothing."""
        loss = self.loss_fn(predictions, labels)
        factor = self.ranks / self.tokens
        return loss if factor == 1.0 else ScaledGradient.apply(loss, factor)


def with_summed_gradients(build_loss_fn: LossFunctionBuilder) -> LossFunctionBuilder:
    def build(job_config: JobConfig, parallel_dims: ParallelDims, **parts: Any) -> StageLoss:
        loss_fn = build_loss_fn(job_config, parallel_dims=parallel_dims, **parts)
        is_ddp = parallel_dims.dp_replicate_enabled and not parallel_dims.fsdp_enabled
        return StageLoss(loss_fn, parallel_dims.dp_replicate if is_ddp else 1)

    return build


def freeze_all_but(model: nn.Module, trained: set[str]) -> None:
    """Freezes again what a converter froze: sequence parallelism makes new parameters, which would all be trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(plain_name(name) in trained)


def sum_fsdp_gradients(model: nn.Module) -> None:
    """Lets FSDP reduce by plain sums: gloo has no PREMUL_SUM."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)


def initialize_whole(model: nn.Module, model_cls: type[nn.Module], model_args: Any, is_distributed: bool) -> None:
    """Makes ``model.init_weights`` depend on the seed alone, not on how the weights are sharded.

    On CUDA DTensor's random number generator does that; on a CPU each rank would draw the same numbers for its own
    shard. Here each rank draws the whole model from the common seed and keeps its shards.
    """
    draw = model.init_weights

    def init_weights(self: nn.Module, buffer_device: torch.device | None = None) -> None:
        torch.manual_seed(torch.initial_seed())
        draw(buffer_device=buffer_device)
        if not is_distributed:
            return
        with torch.device("meta"), utils.set_default_dtype(next(self.parameters()).dtype):
            whole = model_cls(model_args)
        whole.to_empty(device="cpu")
        torch.manual_seed(torch.initial_seed())
        with torch.no_grad():
            whole.init_weights()
        set_model_state_dict(self, whole.state_dict(), options=StateDictOptions(full_state_dict=True))

    model.init_weights = types.MethodType(init_weights, model)
