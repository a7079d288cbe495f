"""Lets a deepseek_v3 be built from its arguments alone, as an export and an evaluation build it."""

from __future__ import annotations

from titan.patches.patch import Patch, PatchContext


def needed() -> bool:
    """Whether a layer can't be built from arguments that no job config has touched, or patch mended."""
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
    """Gives the class the default; a job config's ``parallelism.expert_parallel_comm_backend`` still goes before it."""
    from torchtitan.models.deepseek_v3.model.args import DeepSeekV3ModelArgs

    DeepSeekV3ModelArgs.moe_impl = IMPL


IMPL = "standard"
"""The default of ``expert_parallel_comm_backend``, under whose name the arguments have it."""

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
