"""Parallelism for DTF."""

from __future__ import annotations

from torch import nn
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims

from titan.models.dynamic.parallelize import parallelize_routed


def parallelize_dtf(model: nn.Module, parallel_dims: ParallelDims, job_config: JobConfig) -> nn.Module:
    """Activation checkpointing, compile, FSDP, HSDP and DDP: what leaves a row whole on its rank.

    Raises:
        ValueError: a kind of parallelism that cuts rows, layers or widths.
    """
    return parallelize_routed(model, parallel_dims, job_config)
