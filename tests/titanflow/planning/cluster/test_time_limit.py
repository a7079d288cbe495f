"""A job's time limit against what its stage's forecast knows."""

from dataclasses import replace

import pytest

from titanflow.config.module import Module
from titanflow.planning.cluster.time_limit import time_problem
from titanflow.planning.forecast.forecast import Forecast

MEASURED = Forecast(like="l", seconds_per_step=60.0, source="measured on run main")
ESTIMATED = replace(MEASURED, source="rough: no such stage was measured")


def module(time: str | None, interval: int = 5, steps: int = 1000) -> Module:
    config = {
        "launcher": {"slurm": {"time": time, "save_seconds": 120}},
        "checkpoint": {"interval": interval},
        "training": {"steps": steps},
    }
    return Module("pretrain", "pretrain", "torchtitan", config, {"launcher.slurm.time": "experiment.yaml:7"})


def test_a_limit_that_holds_no_start_and_step_is_refused_by_measurement_and_warned_of_by_estimate() -> None:
    # 180 s less 120 s: a start takes 10 s, a step 60 s.
    problem, warning = time_problem(module("3"), MEASURED)
    assert warning == ""
    told = str(problem)
    assert "pretrain.launcher.slurm.time: found 3, of which 1 min 0 s are left" in told
    assert "experiment.yaml:7" in told
    assert "1 min 10 s (measured on run main)" in told
    problem, warning = time_problem(module("3"), ESTIMATED)
    assert problem is None
    assert "pretrain.launcher.slurm.time" in warning


@pytest.mark.parametrize(("time", "warns"), [("7:09", True), ("7:10", False)])
def test_an_interval_that_no_job_reaches_is_a_warning(time: str, warns: bool) -> None:
    # Five steps and a start are 310 s, and 120 s are for saving.
    problem, warning = time_problem(module(time), MEASURED)
    assert problem is None
    assert ("pretrain.checkpoint.interval: found 5 steps" in warning) is warns


def test_a_training_that_ends_before_its_first_interval_needs_none() -> None:
    assert time_problem(module("4", interval=500, steps=10), MEASURED) == (None, "")


@pytest.mark.parametrize("known", [Forecast(like="l"), MEASURED])
def test_nothing_is_said_without_a_limit_or_a_forecast(known: Forecast) -> None:
    given = module(None) if known.seconds_per_step else module("3")
    assert time_problem(given, known) == (None, "")
