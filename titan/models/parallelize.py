"""Parallelism for this project's decoders: tensor parallelism, activation checkpointing, compile, then FSDP or DDP.

The steps and their order are torchtitan's. Only FSDP differs, because it has to keep tied weights in one group.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torchtitan.config import TORCH_DTYPE_MAP, JobConfig
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.activation_checkpoint import apply_ac
from torchtitan.distributed.context_parallel import apply_cp_to_attention_module
from torchtitan.distributed.tensor_parallel import maybe_enable_async_tp
from torchtitan.models.llama3.infra.parallelize import (
    _op_sac_save_list,
    apply_compile,
    apply_ddp,
    apply_tp,
    disable_fsdp_gradient_division,
)

ROWWISE_FLOAT8 = ("rowwise", "rowwise_with_gw_hp")
"""Recipes with an all-gather in high precision, which use the usual tensor parallelism."""


def parallelize_decoder(model: nn.Module, parallel_dims: ParallelDims, job_config: JobConfig) -> nn.Module:
    """Parallelises a model with the layout of :class:`~titan.models.qwen2.model.model.Qwen2Model`, in place."""
    parallelism, seq_len = job_config.parallelism, job_config.training.seq_len
    if seq_len % parallel_dims.seq_len_divisor:
        raise ValueError(f"training.seq_len: {seq_len} is no multiple of {parallel_dims.seq_len_divisor}")
    is_compiled = job_config.compile.enable and "model" in job_config.compile.components
    if parallel_dims.tp_enabled:
        float8 = job_config.quantize.linear.float8.recipe_name
        mesh = parallel_dims.get_mesh("tp")
        apply_tp(
            model,
            mesh,
            loss_parallel=not parallelism.disable_loss_parallel,
            enable_float8_tensorwise_tp="float8" in job_config.model.converters and float8 not in ROWWISE_FLOAT8,
            cp_enabled=parallel_dims.cp_enabled,
        )
        maybe_enable_async_tp(job_config, mesh)
    if parallel_dims.cp_enabled:
        kernels = [block.attention.inner_attention for block in model.layers.values()]
        apply_cp_to_attention_module(kernels, parallel_dims.get_mesh("cp"), model.model_args.attn_type)
    if job_config.activation_checkpoint.mode != "none":
        apply_ac(
            model,
            job_config.activation_checkpoint,
            model_compile_enabled=is_compiled,
            op_sac_save_list=_op_sac_save_list,
            base_folder=job_config.job.dump_folder,
        )
    if is_compiled:
        apply_compile(model, job_config.compile)
    _apply_data_parallelism(model, parallel_dims, job_config, is_compiled)
    return model


def _apply_data_parallelism(
    model: nn.Module, parallel_dims: ParallelDims, job_config: JobConfig, is_compiled: bool
) -> None:
    if parallel_dims.fsdp_enabled:
        names = ["dp_replicate", "fsdp"] if parallel_dims.dp_replicate_enabled else ["fsdp"]
        apply_fsdp(model, parallel_dims.get_mesh(names), job_config, parallel_dims.pp_enabled)
    elif parallel_dims.dp_replicate_enabled:
        mesh = parallel_dims.get_mesh("dp_replicate")
        if parallel_dims.world_size != mesh.size():
            found = "without FSDP, replicas can't be combined with other parallelism"
            raise ValueError(f"parallelism.data_parallel_replicate_degree: {found}")
        apply_ddp(model, mesh, enable_compile=is_compiled)


def apply_fsdp(model: nn.Module, mesh: DeviceMesh, job_config: JobConfig, pp_enabled: bool) -> None:
    """Shards each layer, the embedding and the output by itself; embedding and output together if they are tied.

    A weight that two groups share can't be sharded by either (torch 2.13 refuses it).
    """
    training = job_config.training
    config: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=TORCH_DTYPE_MAP[training.mixed_precision_param],
            reduce_dtype=TORCH_DTYPE_MAP[training.mixed_precision_reduce],
            # A layer's inputs have that type already, except those kept in fp32 on purpose.
            cast_forward_inputs=False,
        ),
    }
    if training.enable_cpu_offload:
        config["offload_policy"] = CPUOffloadPolicy()
    policy = job_config.parallelism.fsdp_reshard_after_forward
    # A pipeline's microbatches would gather the weights again and again.
    reshard = {"always": True, "never": False, "default": not pp_enabled}[policy]
    is_tied = model.model_args.enable_weight_tying
    if model.tok_embeddings is not None and not is_tied:
        fully_shard(model.tok_embeddings, **config, reshard_after_forward=reshard)
    for layer in model.layers.values():
        fully_shard(layer, **config, reshard_after_forward=reshard)
    if model.norm is not None and model.output is not None and not is_tied:
        # The backward pass needs the last group first.
        fully_shard([model.norm, model.output], **config, reshard_after_forward=policy == "always")
    fully_shard(model, **config)
    disable_fsdp_gradient_division(model)
