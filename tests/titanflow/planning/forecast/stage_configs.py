"""The config of a training module, as far as a forecast reads it."""

from typing import Any

from titanflow.architectures.torchtitan import load_snapshot

DEFAULTS: dict[str, dict[str, Any]] = {
    "launcher": {"nproc_per_node": 1, "nnodes": 1},
    "parallelism": {
        "data_parallel_replicate_degree": 1,
        "data_parallel_shard_degree": -1,
        "tensor_parallel_degree": 1,
        "context_parallel_degree": 1,
        "pipeline_parallel_degree": 1,
        "pipeline_parallel_schedule": "1F1B",
        "pipeline_parallel_microbatch_size": 1,
        "fsdp_reshard_after_forward": "default",
        "disable_loss_parallel": False,
    },
    "training": {
        "seq_len": 128,
        "local_batch_size": 8,
        "global_batch_size": -1,
        "steps": 10,
        "dtype": "float32",
        "mixed_precision_param": "float32",
        "mixed_precision_reduce": "float32",
        "enable_cpu_offload": False,
        "ema": None,
        "loss_chunks": 1,
    },
    "optimizer": {"name": "AdamW", "implementation": "fused"},
    "activation_checkpoint": {"mode": "none", "selective_ac_option": "2", "memory_budget": 0.5},
    "validation": {"enable": False},
}


def stage_config(**sections: dict[str, Any]) -> dict[str, Any]:
    """The defaults with some keys set otherwise."""
    return {name: {**section, **sections.get(name, {})} for name, section in DEFAULTS.items()}


def flavor(family: str, name: str, **overrides: Any) -> dict[str, Any]:
    """A published flavor's arguments, some of them otherwise."""
    return {**load_snapshot()["models"][family]["flavors"][name], **overrides}
