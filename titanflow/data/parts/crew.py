"""The machines of a cluster's job that prepare data together.

The first one leads: it prepares as it would alone, and announces work in parts, which all of them then do. Everything
goes through files of the stage's folder, which all machines share.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from titanflow.common.errors import StageFailed, StageLost
from titanflow.data.parts.task import FAILED, Task, take_parts
from titanflow.runs.contract import RESULT_FILE

POLL_SECONDS = 0.5
"""How often the folder is looked at: no file system tells what another machine wrote."""


@dataclass(frozen=True)
class Crew:
    """The machines of a job, as their leader sees them."""

    folder: Path

    def announce(self, task: Task) -> None:
        """Shows a task to the other machines."""
        number = sum(1 for _ in self.folder.glob("*.task"))
        temporary = self.folder / f"{number}.new"
        temporary.write_bytes(pickle.dumps(task))
        temporary.rename(_announcement(self.folder, number))

    def wait_for(self, task: Task) -> None:
        """Waits until the other machines have made the parts that they took.

        Raises:
            StageFailed: one of them failed.
        """
        while task.missing:
            if (failed := task.claims / FAILED).exists():
                if said := failed.read_text(encoding="utf-8"):
                    raise StageFailed(f"another machine of the job failed: {said}")
                raise StageLost("a process of another machine was killed; finished parts are kept")
            time.sleep(POLL_SECONDS)


def place() -> int:
    """The number of this machine in a job of Slurm, which starts a process on each; the first one, 0, leads."""
    return int(os.environ.get("SLURM_PROCID") or 0)


def crew_folder(stage: Path) -> Path:
    """Where the machines of a job meet."""
    return stage / f"crew-{os.environ.get('SLURM_JOB_ID', '')}"


@contextmanager
def leading(stage: Path) -> Iterator[Crew]:
    """The crew of this job; ends what a killed one left of its own."""
    for left in stage.glob("crew-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = crew_folder(stage)
    folder.mkdir()
    try:
        yield Crew(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def help_leader(stage: Path, num_proc: int | None) -> None:
    """Does what the leader announces, until the stage has its result."""
    folder, number = crew_folder(stage), 0
    while not (stage / RESULT_FILE).exists():
        task = None
        with contextlib.suppress(FileNotFoundError):
            task = pickle.loads(_announcement(folder, number).read_bytes())
        if task is None:
            time.sleep(POLL_SECONDS)
            continue
        number += 1
        if task.claims.is_dir():
            take_parts(task, num_proc)


def _announcement(folder: Path, number: int) -> Path:
    return folder / f"{number}.task"
