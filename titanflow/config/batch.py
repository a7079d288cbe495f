"""How many rows one step of a training takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def global_batch_size(config: Mapping[str, Any]) -> int | None:
    """Rows in one optimizer step, by torchtitan's rule: the global size, or the local one on each data-parallel rank.

    None where the config says neither.
    """
    training, parallelism = config.get("training") or {}, config.get("parallelism") or {}
    launcher = config.get("launcher") or {}
    if (training.get("global_batch_size") or -1) > 0:
        return int(training["global_batch_size"])
    if not training.get("local_batch_size"):
        return None
    ranks = int(launcher.get("nproc_per_node") or 1) * int(launcher.get("nnodes") or 1)
    for kind in ("tensor", "pipeline", "context"):
        ranks //= int(parallelism.get(f"{kind}_parallel_degree") or 1)
    return int(training["local_batch_size"]) * max(ranks, 1)
