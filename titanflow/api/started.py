"""``titanflow.run``: the chain in a process of its own, the command line's, whose lines are shown as they come.

A flow within the caller's process would need its event loop (a notebook's is at work), its signal handlers, and the
right to end it: an interrupted run that hangs ends its whole process, which in a notebook is the kernel.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from titanflow.api.arguments import Arguments, ExperimentLike, PathLike
from titanflow.api.planned import see_to_caches
from titanflow.common.errors import ConfigError, StageFailed, StageLost
from titanflow.common.utf8_mode import STREAMS
from titanflow.config.keys.on_stale import OnStale
from titanflow.planning.stage_plan import Plan
from titanflow.planning.view import check_stale
from titanflow.runs.errors import ending
from titanflow.runs.results import PublishResult, result_of

PROGRAM = ("-m", "titanflow.cli.main", "run")
ERROR = "error: "
"""How the command line begins its last message."""
BAD_INPUT, INTERRUPTED = 2, 130
"""Exit statuses of the command line; 1 is a failed stage's."""
OF_A_KERNEL = ("FORCE_COLOR", "CLICOLOR_FORCE", "MPLBACKEND")
"""Variables of a notebook's kernel for its own output: a run's lines go through a pipe and hold no colours."""


@dataclass(frozen=True)
class Run:
    """A run that went through.

    Attributes:
        experiment: the experiment's name.
        run: the run's name.
        folder: the run's folder: see :func:`titanflow.results` and :func:`titanflow.load`.
        published: the folder or the repository that the model was published to; empty if it wasn't. Of several
            publications it is the last one's; ``results(run).paths`` has all.
        held_back: why the gate held the model back, or several; empty if it didn't.
    """

    experiment: str
    run: str
    folder: Path
    published: str = ""
    held_back: str = ""

    @classmethod
    def of(cls, plan: Plan) -> Run:
        """What became of a plan whose stages have all finished."""
        results = [result_of(stage.run.folder) for stage in plan.of_kind("publish")]
        made = [one for one in results if isinstance(one, PublishResult)]
        published = [one.location for one in made if one.status == "published"]
        held_back = [one.gate.reason for one in made if one.status == "held back" and one.gate]
        return cls(plan.experiment, plan.run, plan.folder, published[-1] if published else "", "; ".join(held_back))


def run(
    experiment: ExperimentLike = "stdlib",
    *,
    configs: PathLike | None = None,
    run: str | None = None,
    overrides: Mapping[str, object] | None = None,
    workspace: PathLike | None = None,
    on_stale: OnStale | None = None,
    wait: bool = False,
) -> Run:
    """Runs an experiment as ``titanflow run``: every stage that isn't done yet. Prints its lines until it ends.

    It is a process of its own, so that it may be called where an event loop runs, as in a notebook. An interrupt (^C,
    "Interrupt kernel") has the stage save a checkpoint, from which the next call goes on; so has the caller's end.

    Args:
        experiment: as of :func:`titanflow.plan`, like all that isn't named here.
        on_stale: what to do with a stage that was made from other inputs: ``error`` refuses the run, ``rerun`` makes it
            again, ``keep`` uses its output; unless given, as the experiment says.
        wait: whether to wait for another run that works in the same folder, which otherwise is an error.

    Raises:
        ConfigError: the experiment can't be used, or has a stale stage. Nothing was started.
        DataError: its data can't be used.
        StageFailed: a stage failed; what was made before it stays.
        KeyboardInterrupt: it was interrupted, and has ended.
    """
    see_to_caches()
    arguments = Arguments.of(experiment, configs, run, overrides, workspace=workspace, on_stale=on_stale)
    plan = arguments.plan(runs_here=True)
    check_stale(plan)
    _follow([*(["--wait"] if wait else []), *arguments.words()])
    return Run.of(plan)


def _follow(arguments: list[str]) -> None:
    """Shows the lines of ``titanflow run`` as they come; its error becomes an exception."""
    from tasks.process import bound

    command = [sys.executable, *PROGRAM, *arguments]
    environ = {name: value for name, value in os.environ.items() if name not in OF_A_KERNEL}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", bound.__file__, str(os.getpid()), *command],
        env={**environ, STREAMS: "utf-8", "PYTHONSAFEPATH": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # An interrupt of this process's group is passed on once, and by the code below alone.
        start_new_session=True,
    )
    said: list[str] = []
    with process:
        try:
            is_interrupted = _relay(process, said)
        except BaseException:
            process.terminate()
            raise
    if is_interrupted or process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    _check(process.returncode, "".join(said).removeprefix(ERROR).rstrip())


def _relay(process: subprocess.Popen[str], said: list[str]) -> bool:
    """Prints a process's lines to its end, except for its error, which goes into ``said``; whether it was interrupted.

    Each interrupt is passed on. The run then saves and ends within the time that it gives itself.
    """
    is_interrupted = False
    while True:
        try:
            for line in _lines(process):
                if said or line.startswith(ERROR):
                    said.append(line)
                else:
                    print(line, end="", flush=True)
            process.wait()
            return is_interrupted
        except KeyboardInterrupt:
            is_interrupted = True
            process.send_signal(signal.SIGINT)


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    # Not the file's own iterator, which an interrupt ends for good.
    return iter(process.stdout.readline, "")


def _check(status: int, error: str) -> None:
    if status == 0:
        return
    if status < 0:
        raise StageLost(f"the run {ending(status)}; the next one goes on from what was saved")
    if status == BAD_INPUT:
        raise ConfigError(error)
    raise StageFailed(error or f"the run {ending(status)}; its last lines say why")
