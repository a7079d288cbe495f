"""Lets a deepseek_v3 stretch RoPE (YaRN) by its ``rope_factor``, whatever the length of a stage's rows."""

from __future__ import annotations

from titan.patches.patch import Patch, PatchContext


def needed() -> bool:
    """Whether ``rope_factor`` still has no effect on rows of the original length."""
    import torch
    from torchtitan.models.deepseek_v3.model.args import DeepSeekV3ModelArgs
    from torchtitan.models.deepseek_v3.model.model import precompute_freqs_cis

    # The caller may be building a model on the meta device.
    with torch.device("cpu"):
        plain, stretched = (
            precompute_freqs_cis(DeepSeekV3ModelArgs(max_seq_len=2, rope_factor=factor)) for factor in (1.0, 40.0)
        )
    return torch.equal(plain, stretched)


def apply(context: PatchContext) -> None:
    from torchtitan.models import deepseek_v3

    from titan.models.deepseek_v3.adapter import StretchedDeepSeekV3Model

    deepseek_v3.DeepSeekV3Model = StretchedDeepSeekV3Model


PATCH = Patch(
    name="deepseek_yarn",
    target="torchtitan.models.deepseek_v3.DeepSeekV3Model",
    what="a subclass that computes frequencies and softmax scale for rope_factor, with a table as long as the rows",
    why=(
        "max_seq_len is set to training.seq_len, and YaRN applies where it exceeds original_seq_len: with rows of 4096 "
        "tokens or fewer rope_factor=40 does nothing and nobody is told, and a model trained on longer rows is "
        "fine-tuned on shorter ones with another RoPE (pytorch/torchtitan #4117)"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
