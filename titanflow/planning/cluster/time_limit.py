"""Whether a stage gets on within a job's time limit, as far as its forecast knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titanflow.common.errors import Problem
from titanflow.common.quantities import duration
from titanflow.config.checks.processes.slurm import limit_seconds
from titanflow.planning.forecast.duration import START_UP

if TYPE_CHECKING:
    from titanflow.config.module import Module
    from titanflow.planning.forecast.forecast import Forecast

TIME = "launcher.slurm.time"


def time_problem(module: Module, forecast: Forecast) -> tuple[Problem | None, str]:
    """The refusal of a training's time limit, and the warning about it; None and "" if it is long enough.

    A stage saves before its limit and goes on in another job, so the limit only has to hold its start and one step; a
    job that is shorter would be submitted for nothing. That is refused if such steps were measured, and a warning where
    their time is estimated. A limit below the checkpoints' interval is a warning: a job that loses a node has saved
    nothing.

    Args:
        module: a training module.
        forecast: of its stage.
    """
    asked = module.config["launcher"]["slurm"]
    limit = limit_seconds(str(asked["time"])) if asked["time"] is not None else None
    if limit is None or (step := forecast.seconds_per_step) is None:
        return None, ""
    usable = limit - asked["save_seconds"]
    if START_UP + step > usable:
        found = f"found {asked['time']}, of which {duration(usable)} are left before the stage has to save"
        expected = f"more than a start and one step, {duration(START_UP + step)} ({forecast.source})"
        problem = module.problem(TIME, found, expected, "ask for more time, or lower launcher.slurm.save_seconds")
        return (problem, "") if forecast.is_measured else (None, str(problem))
    interval = int(module.config["checkpoint"]["interval"])
    if interval < module.config["training"]["steps"] and START_UP + interval * step > usable:
        return None, str(
            module.problem(
                "checkpoint.interval",
                f"found {interval} steps, about {duration(interval * step)} ({forecast.source}), and a job has "
                f"{duration(usable)}: it saves only at its end, so that a node that fails costs all of it",
                hint=f"lower it, or raise {TIME}",
            )
        )
    return None, ""
