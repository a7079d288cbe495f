"""Lets FSDP shard a qwen3 whose embeddings and output head share a weight."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from titan.patches.patch import Patch, PatchContext


def needed() -> bool:
    """Whether torchtitan still shards a qwen3's embeddings and head separately, tied or not."""
    from torchtitan.models.qwen3.infra import parallelize

    return "enable_weight_tying" not in inspect.getsource(parallelize)


def apply(context: PatchContext) -> None:
    """Leaves the shared weight, and the norm before the head, to the whole model's group."""
    from torchtitan.models.llama4.infra import parallelize as shared
    from torchtitan.models.qwen3.infra import parallelize as qwen3

    upstream = qwen3.apply_fsdp
    if hasattr(upstream, "__wrapped__"):
        return

    @functools.wraps(upstream)
    def apply_fsdp(model: Any, *args: Any, **kwargs: Any) -> Any:
        fully_shard, tied = shared.fully_shard, (model.tok_embeddings, model.output)

        def shard_untied(module: Any, **settings: Any) -> Any:
            modules = module if isinstance(module, list) else [module]
            if any(one is other for one in modules for other in tied):
                return module
            return fully_shard(module, **settings)

        if model.enable_weight_tying:
            shared.fully_shard = shard_untied
        try:
            return upstream(model, *args, **kwargs)
        finally:
            shared.fully_shard = fully_shard

    qwen3.apply_fsdp = apply_fsdp


PATCH = Patch(
    name="tied_fsdp",
    target="torchtitan.models.qwen3.infra.parallelize.apply_fsdp",
    what="torchtitan's own, which leaves tied embeddings and output head to the whole model's group",
    why=(
        "it makes a group of the embeddings and one of norm and output head, which can't both hold one weight: torch "
        "stops the first step of each tied qwen3 (0.6B, 1.7B, 4B) on more than one rank (ValueError: Parameter "
        "'tok_embeddings.weight' is shared with a parameter already managed by another FSDP group)"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
