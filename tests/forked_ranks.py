"""Stages whose ranks are forks of a process that has imported torch already: some seconds less for each.

Everything after the imports is what ``python -m titan.train.train``, or another stage's module, does under torchrun.
What torchrun itself does, and what happens to a process from outside, is tested with real ones (``Workbench.start``).
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from watching import PATIENCE

from titanflow.planning.begin import begin_stage
from titanflow.planning.launch import MODULES
from titanflow.planning.stage_plan import Plan
from titanflow.runs.contract import RUN_FILE

PRELOADED = "forked_preload"
FORKED = multiprocessing.get_context("forkserver")


def run_forked(
    command: Sequence[str], ranks: int, env: Mapping[str, str], log: Path, timeout: float, path: Path | None = None
) -> int:
    """Runs a script, or after ``-m`` a module, with its arguments on so many ranks.

    They import what this process may import, before that what lies in ``path``.
    Returns the exit status of the first rank in order whose status isn't 0, else 0.

    Raises:
        subprocess.TimeoutExpired: a rank didn't end; none is left.
    """
    start_server()
    env = {**env, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    env["PYTHONPATH"] = os.pathsep.join(map(str, [path or "", *sys.path]))
    processes = [_start(command, rank, ranks, env, log) for rank in range(ranks)]
    try:
        for process in processes:
            process.join(timeout)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(command, timeout)
            if process.exitcode:
                return process.exitcode
    finally:
        for process in processes:
            process.kill()
            process.join()
    return 0


def run_stages(plan: Plan) -> None:
    """Runs every stage of a plan, each what the command line would start, with no flow between them."""
    for stage in plan.stages:
        begin_stage(stage)
        folder = stage.run.folder
        command, log = ["-m", MODULES[stage.stage], str(folder / RUN_FILE)], folder / "log.txt"
        assert run_forked(command, 1, {**os.environ, **stage.env}, log, 5 * PATIENCE) == 0, log.read_text()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@functools.cache
def start_server() -> None:
    """Starts the process that ranks are forked from."""
    before = dict(os.environ)
    # Python 3.11 hands it no path of modules, and passes over what it can't import.
    os.environ |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    FORKED.set_forkserver_preload([PRELOADED])
    forkserver.ensure_running()
    os.environ.clear()
    os.environ.update(before)


def _start(command: Sequence[str], rank: int, ranks: int, env: Mapping[str, str], log: Path) -> BaseProcess:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    process = FORKED.Process(
        target=_run, args=(command, {**env, **{name: str(number) for name, number in numbers.items()}}, log)
    )
    process.start()
    return process


def _run(command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
    assert PRELOADED in sys.modules, "the process that ranks are forked from imported nothing"
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [part for part in env["PYTHONPATH"].split(os.pathsep) if part]
    with log.open("ab") as file:
        for output in (1, 2):
            os.dup2(file.fileno(), output)
    program, *arguments = command
    if program == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(command)
        runpy.run_path(program, run_name="__main__")
