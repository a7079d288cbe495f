"""Lets exports and evaluations build a deepseek_v3 from its arguments alone."""

from __future__ import annotations

from titan.patches.patch import Patch, PatchContext


def needed() -> bool:
    import torch
    from torchtitan.models.deepseek_v3.model.args import DeepSeekV3ModelArgs
    from torchtitan.models.deepseek_v3.model.model import TransformerBlock

    # A layer that can be built says so in the log, each time.
    if hasattr(DeepSeekV3ModelArgs, "moe_impl"):
        return False
    try:
        with torch.device("meta"):
            TransformerBlock(0, DeepSeekV3ModelArgs(n_dense_layers=0))
    except AttributeError:
        return True
    return False


def apply(context: PatchContext) -> None:
    """Sets the class's default; a job config's ``parallelism.expert_parallel_comm_backend`` still overrides it."""
    from torchtitan.models.deepseek_v3.model.args import DeepSeekV3ModelArgs

    DeepSeekV3ModelArgs.moe_impl = IMPL


IMPL = "standard"
"""The default of ``expert_parallel_comm_backend``."""

PATCH = Patch(
    name="deepseek_args",
    target="torchtitan.models.deepseek_v3.model.args.DeepSeekV3ModelArgs.moe_impl",
    what="'standard', as a class attribute",
    why=(
        "each layer reads model_args.moe_impl, which is no field: only update_from_config sets it, so that arguments "
        "that are made or copied without a job config build no model (AttributeError)"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
