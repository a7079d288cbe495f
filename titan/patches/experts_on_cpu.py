"""Lets torchtitan's mixtures of experts compute on a CPU: in training, and in the comparison of an export."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import TYPE_CHECKING, Any

from titan.patches.patch import Patch, PatchContext

if TYPE_CHECKING:
    import torch


class CountingTorch(ModuleType):
    """``torch`` with a ``histc`` that counts integers on a CPU, too."""

    def __init__(self, upstream: ModuleType) -> None:
        super().__init__(upstream.__name__)
        self._upstream = upstream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upstream, name)

    def histc(self, values: torch.Tensor, bins: int, min: int, max: int) -> torch.Tensor:
        """Counts each integer from ``min`` to below ``max``: int64 of shape (bins,)."""
        if values.is_cpu and not values.is_floating_point() and bins == max - min:
            return self._upstream.bincount(values - min, minlength=bins)
        return self._upstream.histc(values, bins=bins, min=min, max=max)


def needed() -> bool:
    import torch

    try:
        torch.histc(torch.tensor([0, 1, 1]), bins=2, min=0, max=2)
    except NotImplementedError:
        return True
    return False


def apply(context: PatchContext) -> None:
    """Patches the counts, the loop over the experts and the order of tokens, but only for tensors on a CPU."""
    from torchtitan.models.moe import kernels, moe

    if isinstance(moe.torch, CountingTorch):
        return
    moe.torch = CountingTorch(moe.torch)
    run_experts = moe.GroupedExperts.forward
    fill_indices = kernels.fill_indices_wrapper

    @functools.wraps(run_experts)
    def forward(self: Any, x: torch.Tensor, num_tokens_per_expert: torch.Tensor) -> Any:
        # qwen3's arguments ask for the grouped product on any machine; other families check for a GPU.
        self.use_grouped_mm = self.use_grouped_mm and not x.is_cpu
        return run_experts(self, x, num_tokens_per_expert)

    @functools.wraps(fill_indices)
    def fill_indices_wrapper(tokens_per_expert_group: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        fill = kernels.fill_indices_cpu if tokens_per_expert_group.is_cpu else fill_indices
        return fill(tokens_per_expert_group, *args, **kwargs)

    moe.GroupedExperts.forward = forward
    kernels.fill_indices_wrapper = fill_indices_wrapper


PATCH = Patch(
    name="experts_on_cpu",
    target="torchtitan.models.moe: moe.torch.histc, moe.GroupedExperts.forward, kernels.fill_indices_wrapper",
    what="bincount, and torchtitan's own loop over the experts and its own reference of the kernel, where it's a CPU's",
    why=(
        "router and reorderer count the tokens of each expert by torch.histc, which has no CPU kernel for whole "
        "numbers (NotImplementedError: \"histogram_cpu\" not implemented for 'Long'); the grouped product of qwen3, "
        "and expert parallelism, order the tokens by a Triton kernel (RuntimeError: 0 active drivers)"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
