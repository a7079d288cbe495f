"""Parallelism for models with routed layers."""

from __future__ import annotations

import torch._dynamo
from torch import nn
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims

from titan.models.parallelize import parallelize_decoder
from titanflow.architectures.families.registry import routed_refusals


def parallelize_routed(model: nn.Module, parallel_dims: ParallelDims, job_config: JobConfig) -> nn.Module:
    """Activation checkpointing, compile, FSDP, HSDP, DDP: a row's tokens compete, so it stays whole on its rank."""
    dims = {"tensor": parallel_dims.tp, "context": parallel_dims.cp, "pipeline": parallel_dims.pp}
    degrees = {f"parallelism.{kind}_parallel_degree": degree for kind, degree in dims.items()}
    refusals = routed_refusals(degrees, model.model_args.attn_type)
    if refusals:
        raise ValueError("; ".join(f"{key}: {why}" for key, why in refusals.items()))
    # A layer has already kept its statistics when checkpointing recomputes it under torch.compile.
    torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True
    return parallelize_decoder(model, parallel_dims, job_config)
