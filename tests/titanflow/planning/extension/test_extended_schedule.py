"""The shape of a learning rate as the plan tells it, beside torchtitan's own factors."""

from typing import Any

import pytest

from titanflow.planning.extension.schedule import Schedule


def config(steps: int, **keys: Any) -> dict[str, Any]:
    given = {"warmup_steps": 4, "total_steps": None, "decay_ratio": None, "decay_type": "linear", "min_lr_factor": 0.0}
    return {"training": {"steps": steps}, "lr_scheduler": {**given, **keys}}


def factors(steps: int, **keys: Any) -> list[float]:
    """torchtitan's factor of each step's rate, and of the one that a checkpoint after the last step holds."""
    torch = pytest.importorskip("torch")
    from torchtitan.components.lr_scheduler import build_lr_schedulers
    from torchtitan.config.job_config import LRScheduler

    given = config(steps, **keys)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    (scheduler,) = build_lr_schedulers([optimizer], LRScheduler(**given["lr_scheduler"]), steps).schedulers
    return [scheduler.lr_lambdas[0](step) for step in range(steps + 1)]


@pytest.mark.parametrize("decay_type", ["linear", "sqrt", "cosine"])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0, None])
@pytest.mark.parametrize("steps", [3, 20, 33])
def test_until_its_decay_it_is_what_torchtitan_computes(steps: int, ratio: float | None, decay_type: str) -> None:
    keys = {"decay_ratio": ratio, "decay_type": decay_type}
    schedule = Schedule.of(config(steps, **keys))
    rates = factors(steps, **keys)
    plateau = rates[schedule.warmup : schedule.decays_after + 1]
    assert set(plateau) == {1.0}
    assert all(rate < 1.0 for rate in rates[schedule.decays_after + 1 : steps + 1])
    longer = factors(2 * steps, **keys)
    begins = schedule.decays_after
    if schedule.kept_step or (schedule.is_constant and schedule.warmup < steps):
        # What a checkpoint of that step holds is the next step's rate.
        assert rates[: begins + 1] == longer[: begins + 1]


def test_the_kept_step_is_there_for_a_plateau_and_a_decay_that_moves_with_the_steps() -> None:
    assert Schedule.of(config(100, decay_ratio=0.2)).kept_step == 80
    assert Schedule.of(config(100, decay_ratio=0.0)).kept_step is None
    assert Schedule.of(config(100)).kept_step is None
    assert Schedule.of(config(100, decay_ratio=0.99)).kept_step is None
    assert Schedule.of(config(100, decay_ratio=0.2, total_steps=200)).kept_step is None
    assert Schedule.of(config(100, decay_ratio=0.2, min_lr_factor=1.0)).is_constant


def test_a_warm_up_longer_than_the_training_is_cut() -> None:
    assert Schedule.of(config(3)).warmup == 3
