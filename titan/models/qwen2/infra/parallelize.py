"""Parallelism for Qwen2.5."""

from __future__ import annotations

from torch import nn
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims

from titan.models.parallelize import parallelize_decoder


def parallelize_qwen2(model: nn.Module, parallel_dims: ParallelDims, job_config: JobConfig) -> nn.Module:
    """Everything that a dense decoder can do: TP, CP, activation checkpointing, compile, FSDP, HSDP, DDP."""
    if parallel_dims.pp_enabled and model.model_args.enable_weight_tying:
        raise ValueError("model.enable_weight_tying: a pipeline's first and last stage can't share a weight")
    return parallelize_decoder(model, parallel_dims, job_config)
