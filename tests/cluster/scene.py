"""A run in the middle of a stage, and who takes part in it on the nodes: what the events of the matrix are done to."""

import abc
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from uuid import UUID

import psutil
from local_slurm import NODES, LocalSlurm
from watching import wait_for

sys.path.append(str(Path(__file__).parents[1] / "survival"))
from machine import Machine

LOOK_SECONDS = 0.5
"""How often a cluster is looked at."""
JOB_ID = "SLURM_JOB_ID"


def roles(slurm: LocalSlurm, node: str) -> dict[str, list[psutil.Process]]:
    """A node's processes of a stage: ``rank``, ``agent`` (torchrun), ``srun``, ``shell`` (the job's script)."""
    found: dict[str, list[psutil.Process]] = {"rank": [], "agent": [], "srun": [], "shell": []}
    for process in slurm.of_node(node):
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if process.name() == "srun":
                # It has a helper of the same name.
                if process.parent().name() != "srun":
                    found["srun"].append(process)
            elif process.name() == "slurm_script":
                found["shell"].append(process)
            elif "torch.distributed.run" in command[1:3]:
                found["agent"].append(process)
            elif "-m" in command[1:3] and command[-1].endswith("run.yaml"):
                found["rank"].append(process)
    return found


def living_jobs(slurm: LocalSlurm, name: str = "") -> list[str]:
    """The ids of a stage's living jobs, or of all."""
    wanted = [f"--name={name}"] if name else []
    return slurm.output("squeue", "--noheader", *wanted, "--format=%A").split()


def orphans(slurm: LocalSlurm) -> list[str]:
    """The processes on nodes whose job isn't there any more."""
    found, living = [], living_jobs(slurm)
    for process in slurm.processes():
        with contextlib.suppress(psutil.Error):
            job = process.environ().get(JOB_ID)
            if job and job not in living:
                found.append(f"job {job}: {process.name()} {process.pid}")
    return found


def wait_none(found: Callable[[], list[str]], seconds: float = 30.0) -> list[str]:
    """What is still found after some seconds, in which it may go by itself."""
    end = time.monotonic() + seconds
    while (left := found()) and time.monotonic() < end:
        time.sleep(0.2)
    return left


class Looks(abc.ABC):
    """Looks at the cluster again and again, for as long as its block lasts; ``found`` has what it came upon."""

    def __init__(self, slurm: LocalSlurm) -> None:
        self.slurm = slurm
        self.found: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name=type(self).__name__)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            # A controller that is away shows nothing.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.found += self.look()

    @abc.abstractmethod
    def look(self) -> list[str]: ...


class Doubles(Looks):
    """Stages that have two living jobs."""

    def look(self) -> list[str]:
        jobs = self.slurm.output("squeue", "--noheader", "--format=%j %A %T").splitlines()
        counted = Counter(job.split()[0] for job in jobs)
        double = {name for name, number in counted.items() if number > 1 and name.startswith("titanflow-")}
        return [job for job in jobs if job.split()[0] in double]


class Administrator(Looks):
    """Puts a drained node back to work.

    A controller that is killed within seconds of a job's start has forgotten it, starts the job once more, and drains
    the node that says that the job runs there already. Slurm leaves such a node to a person.
    """

    def look(self) -> list[str]:
        return self.slurm.resume_drained()


@dataclass
class Scene:
    """A run whose stage is in the middle; ``machine`` serves it beside the controller."""

    slurm: LocalSlurm
    machine: Machine
    folder: Path
    flow_run: UUID
    command_line: subprocess.Popen | None = None
    other_jobs: list[str] = field(default_factory=list)

    def role(self, name: str, node: str = "") -> list[psutil.Process]:
        """The stage's processes of one kind, on one node or on all."""
        return [process for place in ([node] if node else NODES) for process in roles(self.slurm, place)[name]]

    def job(self) -> dict:
        """What is noted of the stage's job."""
        path = self.folder / "job.json"
        return json.loads(path.read_text()) if path.exists() else {"id": "", "name": "titanflow-none"}

    @contextmanager
    def held(self) -> Iterator[list[psutil.Process]]:
        """The ranks stand still, so that nothing is trained while something else is waited for."""
        ranks = self.role("rank")
        for process in ranks:
            process.suspend()
        try:
            yield ranks
        finally:
            for process in ranks:
                with contextlib.suppress(psutil.Error):
                    process.resume()

    def wait_state(self, job: str, state: str) -> None:
        """Waits until a job has a state."""
        asked = ("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")
        wait_for(lambda: self.slurm.output(*asked) == state, f"{state} of job {job}", 180)
