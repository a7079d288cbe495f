"""torchtitan's deepseek_v3 with RoPE stretched (YaRN) if its arguments say so, however long the rows are."""

from __future__ import annotations

import copy

import torch
from torchtitan.models.deepseek_v3.model import model as titans
from torchtitan.models.deepseek_v3.model.args import DeepSeekV3ModelArgs


class StretchedDeepSeekV3Model(titans.DeepSeekV3Model):
    """Frequencies and softmax scale follow ``rope_factor``; 1 stretches nothing.

    torchtitan stretches only for rows longer than ``original_seq_len``. Weights fine-tuned on shorter rows would then
    be rotated by other frequencies than in their pretraining.
    """

    def __init__(self, model_args: DeepSeekV3ModelArgs) -> None:
        super().__init__(stretching(model_args))
        self.model_args = model_args
        self.max_seq_len = model_args.max_seq_len
        self.freqs_cis = frequencies(model_args)

    def init_weights(self, buffer_device: torch.device | None = None) -> None:
        device = buffer_device or self.freqs_cis.device
        super().init_weights(buffer_device)
        with torch.device(device):
            self.freqs_cis = frequencies(self.model_args)


def stretching(args: DeepSeekV3ModelArgs) -> DeepSeekV3ModelArgs:
    """Arguments with enough positions that torchtitan stretches RoPE, if ``rope_factor`` asks for it."""
    # Not by dataclasses.replace: a job config sets moe_impl, which is no field.
    longer = copy.copy(args)
    if args.rope_factor > 1:
        longer.max_seq_len = max(args.max_seq_len, args.original_seq_len + 1)
    return longer


def frequencies(args: DeepSeekV3ModelArgs) -> torch.Tensor:
    """RoPE's table for just ``max_seq_len`` positions: context parallelism cuts it as it cuts the rows."""
    return titans.precompute_freqs_cis(stretching(args))[: args.max_seq_len].clone()
