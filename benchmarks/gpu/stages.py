"""A stage's own process, as a run starts it: begun, followed step by step, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.contract import METRICS_FILE
from titanflow.runs.errors import StageError
from titanflow.runs.metrics import read_metrics

CONFIGS = Path(__file__).parents[2] / "configs"
POLL_SECONDS = 0.05
PATIENCE = 10.0
"""Seconds that processes have to end by themselves."""


class Failed(Exception):
    """A process ended otherwise than it should have; its text ends with what it said last."""


def planned(modules: Mapping[str, Any], workspace: Path, run: str = "main") -> Plan:
    """The plan of an experiment that is given as it is."""
    experiment = {"exp_name": "gpu", "workspace": str(workspace), "modules": modules}
    return make_plan(json.dumps(experiment), CONFIGS, run, runs_here=False)


def begin(stage: StagePlan) -> subprocess.Popen[bytes]:
    """Starts a stage's process; what it says goes into its log."""
    run = stage.run
    run.folder.mkdir(parents=True, exist_ok=True)
    run.write()
    return start(stage.command, log_of(stage), stage.env)


def start(command: list[str], log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts a command whose output is added to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(command, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT)


def log_of(stage: StagePlan) -> Path:
    return stage.run.folder / f"{stage.stage}.log"


def finish(stage: StagePlan) -> None:
    """Runs a stage to its end.

    Raises:
        Failed: it failed.
    """
    process = begin(stage)
    try:
        if process.wait():
            raise Failed(last_words(log_of(stage)))
    finally:
        end_tree(process.pid)


def prepare(plan: Plan) -> None:
    """Makes the data of a plan, unless it is there."""
    stage = plan.stage("prepare")
    if stage is not None and stage.state != "CACHED":
        finish(stage)


def metrics(stage: StagePlan) -> list[dict[str, Any]]:
    """The records of the steps that a training has logged so far."""
    path = stage.run.folder / METRICS_FILE
    return [record for record in read_metrics(path) if "loss" in record] if path.exists() else []


def follow(process: subprocess.Popen[bytes], log: Path, has_enough: Callable[[], bool], seconds: float) -> int:
    """Waits until there is enough of a process, or ``seconds`` are over; then ends it with those that it started.

    Returns the most memory of this machine that one of them held, in bytes.

    Raises:
        Failed: it failed before.
    """
    until = time.monotonic() + seconds
    try:
        # What a process logs can only be looked at.
        while not has_enough() and time.monotonic() < until and process.poll() is None:
            time.sleep(POLL_SECONDS)
        if process.poll():
            raise Failed(last_words(log))
        return max((resident_peak(one.pid) for one in tree_of(process.pid)), default=0)
    finally:
        end_tree(process.pid)


def end_tree(pid: int) -> None:
    """Kills a process and all those that it started: ranks are in sessions of their own."""
    tree = tree_of(pid)
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(tree, PATIENCE)


def tree_of(pid: int) -> list[psutil.Process]:
    """A process and all those that it started, and they; none if it is gone."""
    try:
        parent = psutil.Process(pid)
        return [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return []


def resident_peak(pid: int) -> int:
    """The most memory that a process has held, in bytes; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def last_words(log: Path, lines: int = 3) -> str:
    """What a stage says of its failure, or else the last lines of a log that say something."""
    if error := StageError.of(log.parent):
        return f"{error.type}: {error.message}"
    said = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return " | ".join(said[-lines:])[-400:]
