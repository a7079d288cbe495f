"""Lets a lone process save and load checkpoints without collectives."""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import Any

from titan.patches.patch import Patch, PatchContext


class LoneCheckpoint(ModuleType):
    """``torch.distributed.checkpoint`` whose ``save``, ``async_save`` and ``load`` use no collectives."""

    def __init__(self, dcp: ModuleType) -> None:
        super().__init__(dcp.__name__)
        self._dcp = dcp
        self.save = functools.partial(dcp.save, no_dist=True)
        self.async_save = functools.partial(dcp.async_save, no_dist=True)
        self.load = functools.partial(dcp.load, no_dist=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dcp, name)


def needed() -> bool:
    import torch

    return os.environ.get("WORLD_SIZE", "1") == "1" and not torch.cuda.is_available()


def apply(context: PatchContext) -> None:
    from torchtitan.components import checkpoint

    if not isinstance(checkpoint.dcp, LoneCheckpoint):
        checkpoint.dcp = LoneCheckpoint(checkpoint.dcp)


PATCH = Patch(
    name="lone_checkpoint",
    target="torchtitan.components.checkpoint.dcp",
    what="save and load with no_dist=True, where there is one process",
    why=(
        "torchtitan sends a checkpoint's description through gloo even to nobody, and after the first one two cores "
        "train at 14,000 tokens/s where they had 20,000; most likely gloo's thread copies it with an OpenMP team of "
        "its own, and with more threads than cores OpenMP stops spinning"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
