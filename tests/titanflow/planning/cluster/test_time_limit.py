"""A job's time limit against what its stage's forecast knows."""

from dataclasses import replace

import pytest

from titanflow.config.module import Module
from titanflow.planning.cluster.time_limit import JOB_START, time_problem
from titanflow.planning.forecast.forecast import Forecast

MEASURED = Forecast(like="l", seconds_per_step=60.0, source="measured on run main")
ESTIMATED = replace(MEASURED, source="rough: no such stage was measured")


def module(time: str | None, interval: int = 5, steps: int = 1000) -> Module:
    launcher = {"kind": "slurm", "slurm": {"time": time, "save_seconds": 120}}
    return of(launcher, interval, steps)


def of(launcher: dict[str, object], interval: int = 5, steps: int = 1000) -> Module:
    config = {"launcher": launcher, "checkpoint": {"interval": interval}, "training": {"steps": steps}}
    return Module("pretrain", "pretrain", "torchtitan", config, {"launcher.slurm.time": "experiment.yaml:7"})


def pods(seconds: int | None, **more: int) -> Module:
    settings = {"active_deadline_seconds": seconds, "save_seconds": 120}
    return of({"kind": "kubernetes", "kubernetes": settings}, **more)


def test_a_limit_that_holds_no_start_and_step_is_refused_by_measurement_and_doubted_by_estimate() -> None:
    # 280 s less 120 s, and less the minute that Slurm may be early: a start of two nodes takes 44 s, a step 60 s.
    problem, doubt = time_problem(module("4:40"), MEASURED)
    assert doubt is None
    told = str(problem)
    assert "pretrain.launcher.slurm.time: found 4:40, of which 1 min 40 s are left" in told
    assert "experiment.yaml:7" in told
    assert "1 min 44 s (measured on run main)" in told
    problem, doubt = time_problem(module("4:40"), ESTIMATED)
    assert problem is None
    assert "pretrain.launcher.slurm.time" in str(doubt)


@pytest.mark.parametrize(("time", "refuses"), [("4:43", True), ("4:44", False)])
def test_the_least_limit_is_the_saving_the_early_minute_a_start_and_a_step(time: str, refuses: bool) -> None:
    assert JOB_START + 60 + 120 + 60 == 284
    assert (time_problem(module(time, interval=1), MEASURED)[0] is not None) is refuses


@pytest.mark.parametrize(("time", "doubts"), [("8:43", True), ("8:44", False)])
def test_an_interval_that_no_job_reaches_is_a_doubt(time: str, doubts: bool) -> None:
    # Five steps and a start are 344 s, 120 s are for saving, and Slurm may be 60 s early.
    problem, doubt = time_problem(module(time), MEASURED)
    assert problem is None
    assert (doubt is not None and "pretrain.checkpoint.interval: found 5 steps" in str(doubt)) is doubts


@pytest.mark.parametrize(("seconds", "refuses"), [(103, True), (104, False)])
def test_pods_save_after_their_deadline(seconds: int, refuses: bool) -> None:
    problem, _ = time_problem(pods(seconds, interval=1), MEASURED)
    assert (problem is not None) is refuses
    if problem:
        assert problem.key == "pretrain.launcher.kubernetes.active_deadline_seconds"
        assert "found 103, of which 1 min 43 s are left" in problem.message


def test_a_training_that_ends_before_its_first_interval_needs_none() -> None:
    assert time_problem(module("5", interval=500, steps=10), MEASURED) == (None, None)


@pytest.mark.parametrize("known", [Forecast(like="l"), MEASURED])
def test_nothing_is_said_without_a_limit_or_a_forecast(known: Forecast) -> None:
    for given in (module(None), pods(None)) if known.seconds_per_step else (module("3"), pods(3)):
        assert time_problem(given, known) == (None, None)
