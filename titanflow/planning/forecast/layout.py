"""How a training module is spread over its ranks, and how much data each rank sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from titanflow.config.batch import data_parallel_ranks, global_batch_size, local_share
from titanflow.config.mixture import row_kinds

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
"""Bytes of a number, by torchtitan's name of its type."""


@dataclass(frozen=True)
class Layout:
    """Degrees of parallelism, batch and types of a training module.

    ``fsdp`` ranks share each weight: FSDP shards over context parallelism too. A rank's microbatch is ``rows`` of
    ``seq_len`` tokens; ``batch`` are the rows of a step on all ranks. A row of pairs has two ``sides`` of so many
    tokens.
    """

    processes: int
    replicate: int
    shard: int
    tensor: int
    context: int
    pipeline: int
    rows: int
    batch: int
    seq_len: int
    weight_bytes: int
    compute_bytes: int
    sides: int = 1

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Layout:
        """The layout of a training module's config; its degrees multiply to its processes."""
        launcher, degrees, training = config["launcher"], config["parallelism"], config["training"]
        processes = int(launcher["nproc_per_node"]) * int(launcher["nnodes"])
        replicate, tensor, context, pipeline = (
            int(degrees[f"{kind}_degree"])
            for kind in ("data_parallel_replicate", "tensor_parallel", "context_parallel", "pipeline_parallel")
        )
        shard = int(degrees["data_parallel_shard_degree"])
        if shard == -1:
            shard = max(1, processes // (replicate * tensor * context * pipeline))
        local, ranks = int(training["local_batch_size"]), data_parallel_ranks(config)
        batch = global_batch_size(config) or local * ranks
        rows = local_share(batch, local, ranks) or local
        return cls(
            processes=processes,
            replicate=replicate,
            shard=shard,
            tensor=tensor,
            context=context,
            pipeline=pipeline,
            rows=rows,
            batch=batch,
            seq_len=int(training["seq_len"]),
            weight_bytes=BYTES[training["dtype"]],
            compute_bytes=BYTES[training["mixed_precision_param"]],
            sides=2 if "pairs" in row_kinds(config.get("data") or {}) else 1,
        )

    @property
    def fsdp(self) -> int:
        return self.shard * self.context

    @property
    def states(self) -> int:
        """The number of parts that the whole model's weights are cut into."""
        return self.fsdp * self.tensor * self.pipeline

    @property
    def autocasts(self) -> bool:
        """Whether torch's autocast computes in another type than the weights'; with FSDP it is FSDP that casts."""
        return self.fsdp == self.tensor == self.pipeline == 1 and self.compute_bytes != self.weight_bytes

    @property
    def activation_bytes(self) -> int:
        """Bytes of a number that a layer computes."""
        return self.compute_bytes if self.fsdp > 1 or self.autocasts else self.weight_bytes

    @property
    def accumulates(self) -> bool:
        """Whether a step adds up the gradients of several microbatches."""
        return self.batch > self.rows * self.replicate * self.shard

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.sides * self.seq_len

    @property
    def repeats(self) -> float:
        """How often Muon's work for a matrix is done: ranks along one dimension share it, the others repeat it."""
        return self.processes / self.pipeline / max(self.fsdp, self.tensor if self.fsdp == 1 else 1)
