"""What may happen to a run, and what has to come of it."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import UUID

import psutil
from machine import Machine
from prefect.states import Cancelling
from watching import alive, wait_for

TRAININGS = ("pretrain", "sft")
STAGES = ("prepare", "pretrain", "sft", "evaluate", "publish")
FILE_LIMIT = 8192
"""Bytes: as a full disk, the kernel then refuses to write more into a file."""


@dataclass
class Scene:
    """A stage in the middle of its work; ``held`` are its processes, stopped so that it doesn't end too early."""

    machine: Machine
    run: str
    stage: str
    flow_run: UUID
    command_line: subprocess.Popen | None = None
    held: list[psutil.Process] = field(default_factory=list)

    def ranks(self) -> list[psutil.Process]:
        """The processes that do the work."""
        found = self.machine.stage_processes(self.run, self.stage)
        return [process for process in found if "torch.distributed.run" not in process.cmdline()]

    def torchrun(self) -> psutil.Process:
        """The launcher."""
        return self.machine.stage_processes(self.run, self.stage)[0]

    def release(self) -> None:
        """Lets held processes go on once they were told to end, or are gone."""
        wait_for(lambda: all(was_told(process) for process in self.held), "the stage to be told", 60)
        for process in self.held:
            if alive(process.pid):
                process.resume()


def was_told(process: psutil.Process) -> bool:
    """Whether a stopped process has a SIGTERM waiting, or is gone."""
    try:
        with Path(f"/proc/{process.pid}/status").open() as status:
            pending = [int(line.split()[1], 16) for line in status if line.startswith(("SigPnd", "ShdPnd"))]
    except OSError:
        return True
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in pending) or not alive(process.pid)


Outcome = Literal["Cancelled", "Crashed", "Failed", "started again", "stage retried", "goes on"]


@dataclass(frozen=True)
class Event:
    """``cause`` is a pattern that the failure's message has; ``graceful`` means that the present step is saved."""

    name: str
    apply: Callable[[Scene], None]
    outcome: Outcome
    cause: str = ""
    graceful: bool = False
    stages: tuple[str, ...] = STAGES
    from_command_line: bool = False


def cancel(scene: Scene) -> None:
    """As the UI's button does."""
    scene.machine.set_state(scene.flow_run, Cancelling())


def interrupt(scene: Scene) -> None:
    """As a terminal does: to all of its foreground processes."""
    os.killpg(scene.command_line.pid, signal.SIGINT)


def to_rank(number: int) -> Callable[[Scene], None]:
    """A signal to the last rank."""
    return lambda scene: scene.ranks()[-1].send_signal(number)


def to_torchrun(number: int) -> Callable[[Scene], None]:
    """A signal to the launcher."""
    return lambda scene: scene.torchrun().send_signal(number)


def to_flow(number: int) -> Callable[[Scene], None]:
    """A signal to the flow run's process."""
    return lambda scene: scene.machine.flow(scene.flow_run).send_signal(number)


def to_worker(number: int) -> Callable[[Scene], None]:
    """A signal to Prefect's worker."""
    return lambda scene: scene.machine.service("worker start").send_signal(number)


def restart_server(scene: Scene) -> None:
    """The server ends, and is up again."""
    server = scene.machine.service("server start")
    server.terminate()
    # It waits for its clients to hang up, and has as long as an init system would give it.
    time.sleep(5)
    if alive(server.pid):
        server.kill()
    wait_for(lambda: not alive(server.pid), "the server's end", 60)
    wait_for(scene.machine.is_up, "the server", 120)
    for process in scene.held:
        process.resume()
    scene.held.clear()


def reboot(scene: Scene) -> None:
    """Everything ends at once, and what an init system starts is started again."""
    scene.machine.lose_power()
    scene.machine.start()


def fill_disk(scene: Scene) -> None:
    """No file may grow any more."""
    for process in scene.ranks():
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    for process in scene.held:
        process.resume()
    scene.held.clear()


EVENTS = (
    Event("SIGKILL rank", to_rank(signal.SIGKILL), "stage retried", "killed by SIGKILL"),
    Event("SIGKILL torchrun", to_torchrun(signal.SIGKILL), "stage retried", "killed by SIGKILL", stages=STAGES[1:]),
    Event("hung rank", to_rank(signal.SIGSTOP), "stage retried", "rank 1 did not answer for 10 s", stages=TRAININGS),
    Event("SIGKILL flow", to_flow(signal.SIGKILL), "started again", "SIGKILL"),
    Event("SIGTERM worker", to_worker(signal.SIGTERM), "started again", "the worker .* ended", graceful=True),
    Event("SIGKILL worker", to_worker(signal.SIGKILL), "started again", "the worker .* ended", graceful=True),
    Event("reboot", reboot, "started again", "process is gone"),
    Event("SIGTERM rank", to_rank(signal.SIGTERM), "Failed", "stopped on SIGTERM", graceful=True),
    Event("SIGTERM torchrun", to_torchrun(signal.SIGTERM), "Failed", "stopped on SIGTERM", True, STAGES[1:]),
    Event("SIGTERM flow", to_flow(signal.SIGTERM), "Crashed", "termination signal", graceful=True),
    Event("cancel", cancel, "Cancelled", graceful=True),
    Event("^C", interrupt, "Crashed", "abort|interrupt", graceful=True, from_command_line=True),
    Event("full disk", fill_disk, "Failed", "disk is full|File too large|No space left"),
    Event("server restart", restart_server, "goes on"),
)


def command_line(machine: Machine, parameters: dict) -> subprocess.Popen:
    """``titanflow run`` in a terminal of its own, against the machine's server."""
    settings = [part for key, value in parameters["overrides"].items() for part in ("--set", f"{key}={value}")]
    settings += ["--set", f"launcher.nproc_per_node={parameters['nproc_per_node']}"]
    command = [sys.executable, "-m", "titanflow.cli.main", "run", parameters["experiment"]]
    return subprocess.Popen(
        [*command, "--configs", parameters["configs"], "--run", parameters["run"], *settings],
        env={**machine.env, "PREFECT_API_URL": machine.url, "PREFECT_HOME": str(machine.home)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
