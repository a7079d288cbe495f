"""torchtitan's schedules against their closed forms, step by step: docs/stages.md states these."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torchtitan.components.lr_scheduler import LRSchedulersContainer, build_lr_schedulers
from torchtitan.components.optimizer import OptimizersContainer
from torchtitan.config.job_config import LRScheduler

LR = 0.01
DECAYS = {
    "linear": lambda done: 1 - done,
    "sqrt": lambda done: 1 - math.sqrt(done),
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}


def scheduled(steps: int, **settings: Any) -> LRSchedulersContainer:
    optimizers = OptimizersContainer([nn.Linear(1, 1)], torch.optim.AdamW, {"lr": LR})
    return build_lr_schedulers(optimizers, LRScheduler(**settings), steps)


def rates(schedulers: LRSchedulersContainer, steps: int) -> list[float]:
    """The learning rate of each of the next steps."""
    found = []
    for _ in range(steps):
        found.append(schedulers.schedulers[0].get_last_lr()[0])
        schedulers.schedulers[0].optimizer.step()
        schedulers.step()
    return found


def closed_form(step: int, steps: int, warmup: int, ratio: float, decay: str, least: float = 0.0) -> float:
    """Warm-up to the step ``warmup``, then the full rate, and a decay of ``round(ratio * steps)`` steps at the end."""
    decays = min(round(steps * ratio), steps - warmup)
    if step <= warmup:
        return LR * step / warmup
    done = max(0, step - (steps - decays) - 1) / decays if decays else 0.0
    return LR * (least + (1 - least) * DECAYS[decay](done))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize(("warmup", "ratio", "least"), [(5, 0.2, 0.0), (0, 0.5, 0.1), (10, 1.0, 0.0), (3, 0.0, 0.0)])
def test_each_step_of_warm_up_stable_and_decay_has_its_rate(
    decay: str, warmup: int, ratio: float, least: float
) -> None:
    settings = {"warmup_steps": warmup, "decay_ratio": ratio, "decay_type": decay, "min_lr_factor": least}
    found = rates(scheduled(50, **settings), 50)
    assert found == pytest.approx([closed_form(step, 50, warmup, ratio, decay, least) for step in range(1, 51)])


def test_without_a_decay_the_rate_is_constant_to_the_last_step_and_a_longer_training_begins_the_same() -> None:
    short = rates(scheduled(30, warmup_steps=4, decay_ratio=0.0), 30)
    assert short[4:] == [LR] * 26
    assert rates(scheduled(60, warmup_steps=4, decay_ratio=0.0), 60)[:30] == short


def test_until_its_decay_a_longer_training_has_the_rates_of_a_shorter_one() -> None:
    short, longer = (rates(scheduled(steps, warmup_steps=4, decay_ratio=0.2), steps) for steps in (50, 100))
    assert short[:41] == longer[:41]
    assert short[41] < LR == longer[41]


def test_a_resume_in_the_decay_goes_on_with_the_next_rate() -> None:
    settings = {"warmup_steps": 4, "decay_ratio": 0.4}
    whole = rates(scheduled(50, **settings), 50)
    first = scheduled(50, **settings)
    rates(first, 37)
    second = scheduled(50, **settings)
    second.load_state_dict(first.state_dict())
    assert rates(second, 13) == pytest.approx(whole[37:])
