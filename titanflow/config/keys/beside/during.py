"""The keys of scores that are made beside a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class During:
    """Scores of a training's checkpoints while it trains.

    An evaluate module says how its tasks are asked; of a source with held-out rows the dev part is asked.
    """

    every: int | None = None
    """Steps from one scored checkpoint to the next, a multiple of `checkpoint.interval`; the last step is scored, too.
    Unset, nothing is scored before the evaluate stage."""
    tasks: list[str] = field(default_factory=list)
    """Tasks, groups or suites to score; unset, those of the evaluate module."""
    evaluation: str | None = None
    """The evaluate module that says how the tasks are asked; unset, the only one, or the one that scores this stage."""
    limit: float | None = None
    """Items a task (a share of them below 1), the first ones; unset, all."""
    device: Literal["auto", "cpu", "shared"] = "auto"
    """Where it computes while the training runs: `auto` takes a GPU that no stage has, else the CPU; `cpu` the CPU;
    `shared` the training's own GPU, which then needs memory for both and trains more slowly."""
