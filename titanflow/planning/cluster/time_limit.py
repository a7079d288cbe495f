"""Whether a stage gets on within a job's time limit, as far as its forecast knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titanflow.common.errors import Problem
from titanflow.common.quantities import duration
from titanflow.config.checks.processes.slurm import EARLY_SECONDS, limit_seconds

if TYPE_CHECKING:
    from titanflow.config.module import Module
    from titanflow.planning.forecast.forecast import Forecast

JOB_START = 44.0
"""Seconds from a job's start to its first step: imports from the shared storage, and nodes that meet. Measured for a
job of two nodes of Slurm (a tiny model, one core a node); an image that has to be pulled takes longer."""
LIMITS = {"slurm": "launcher.slurm.time", "kubernetes": "launcher.kubernetes.active_deadline_seconds"}
REMEDIES = {
    "slurm": "ask for more time, or lower launcher.slurm.save_seconds",
    "kubernetes": "ask for more time, which has to hold the job's wait for its nodes, too",
}


def time_problem(module: Module, forecast: Forecast) -> tuple[Problem | None, Problem | None]:
    """The refusal of a training's time limit, and the doubt about it; two None if it is long enough.

    A stage saves before its limit and goes on in another job, so the limit only has to hold its start and one step; a
    job that is shorter would be submitted for nothing. That is refused if such steps were measured, and a doubt where
    their time is estimated. A limit below the checkpoints' interval is a doubt: a job that loses a node has saved
    nothing.

    Args:
        module: a training module whose launcher's kind is a cluster.
        forecast: of its stage.
    """
    usable, step = _usable_seconds(module), forecast.seconds_per_step
    if usable is None or step is None:
        return None, None
    kind = module.config["launcher"]["kind"]
    if JOB_START + step > usable:
        key = LIMITS[kind]
        asked = module.config["launcher"][kind][key.rpartition(".")[2]]
        found = f"found {asked}, of which {duration(max(0, usable))} are left before the stage may have to save"
        expected = f"more than a job's start and one step, {duration(JOB_START + step)} ({forecast.source})"
        problem = module.problem(key, found, expected, REMEDIES[kind])
        return (problem, None) if forecast.is_measured else (None, problem)
    interval = int(module.config["checkpoint"]["interval"])
    if interval < module.config["training"]["steps"] and JOB_START + interval * step > usable:
        found = f"found {interval} steps, about {duration(interval * step)} ({forecast.source}), and a job has "
        found += f"{duration(usable)}: it saves only at its end, so that a node that fails costs all of it"
        return None, module.problem("checkpoint.interval", found, hint=f"lower it, or raise {LIMITS[kind]}")
    return None, None


def _usable_seconds(module: Module) -> float | None:
    """How long a job may work until it may be told to save; None without a limit."""
    launcher = module.config["launcher"]
    if launcher["kind"] == "kubernetes":
        # The pods may save after the deadline, for save_seconds.
        deadline = launcher["kubernetes"]["active_deadline_seconds"]
        return None if deadline is None else float(deadline)
    asked = launcher["slurm"]
    limit = limit_seconds(asked["time"]) if asked["time"] is not None else None
    return None if limit is None else limit - asked["save_seconds"] - EARLY_SECONDS
