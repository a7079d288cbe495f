"""The shape of a training's learning rate: warm-up, a constant part, a decay; as torchtitan divides the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """A learning rate that rises for ``warmup`` steps and falls in the last ``decay`` of ``steps``.

    ``decay_type`` is torchtitan's name of the fall's shape. ``is_fixed`` says that ``lr_scheduler.total_steps`` holds
    the number of steps, so that ``training.steps`` changes nothing.
    """

    warmup: int
    decay: int
    steps: int
    decay_type: str
    is_fixed: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], steps: int | None = None) -> Schedule:
        """The schedule of a training's config; ``steps`` stands in place of its ``training.steps``."""
        given = config["lr_scheduler"]
        steps = config["training"]["steps"] if steps is None else steps
        total = int(given["total_steps"] if given["total_steps"] is not None else steps)
        warmup = min(int(given["warmup_steps"]), total)
        ratio = given["decay_ratio"]
        decay = total - warmup if ratio is None else min(round(total * ratio), total - warmup)
        # A decay to the whole rate changes nothing.
        decay = 0 if given["min_lr_factor"] == 1 else decay
        return cls(warmup, decay, total, given["decay_type"], given["total_steps"] is not None)

    @property
    def decays_after(self) -> int:
        """The last step whose checkpoint knows nothing of the decay: the next step still has the whole rate."""
        return self.steps - self.decay

    @property
    def is_constant(self) -> bool:
        return self.decay == 0

    @property
    def has_plateau(self) -> bool:
        """Whether the rate is constant for a while after the warm-up."""
        return self.decays_after > self.warmup

    @property
    def kept_step(self) -> int | None:
        """The step whose checkpoint stays, so that more steps can be added: the last before a decay in the end (WSD).

        None where the last checkpoint serves for that, or where none would.
        """
        return None if self.is_fixed or self.is_constant or not self.has_plateau else self.decays_after
