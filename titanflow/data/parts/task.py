"""Work in parts, and how the processes of a machine take them: each part is made once, by whoever takes it first."""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from titanflow.common.errors import StageLost
from titanflow.files.cgroups import usable_cores

FAILED = "failed"
"""In a task's folder of claims: how a process failed (empty if it was killed); the others need not go on."""

Make = Callable[[int, Path], dict[str, Any] | None]
"""Makes part ``number`` as a file, and returns what is to be noted of it beside the file, if anything."""


@dataclass(frozen=True)
class Task:
    """Work in ``count`` parts, each a file in ``folder``; ``claims`` has a file for each part that a process took."""

    make: Make
    count: int
    folder: Path
    claims: Path

    def path(self, number: int) -> Path:
        return self.folder / f"{number}.arrow"

    @property
    def missing(self) -> list[int]:
        done = {path.name for path in self.folder.glob("*.arrow")}
        return [number for number in range(self.count) if f"{number}.arrow" not in done]


def take_parts(task: Task, num_proc: int | None) -> None:
    """Makes parts of a task with the processes of this machine, until none is left to take.

    Raises:
        StageLost: a process was killed.
    """
    processes = min(num_proc or cores(), len(task.missing))
    if processes <= 1:
        _take(task)
        return
    # Otherwise each process would start a thread for every core, and warn of the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        with ProcessPoolExecutor(processes, get_context("fork"), _without_bars) as pool:
            for taking in [pool.submit(_take, task) for _ in range(processes)]:
                taking.result()
    except BrokenProcessPool as error:
        (task.claims / FAILED).touch()
        raise StageLost("a process that prepares data was killed; finished parts are kept") from error


def cores() -> int:
    """The cores for this machine's processes: those that Slurm gave to its job, or all."""
    return int(os.environ.get("SLURM_CPUS_ON_NODE") or usable_cores())


def _without_bars() -> None:
    import datasets

    datasets.disable_progress_bars()


def _take(task: Task) -> None:
    while (number := _claim(task)) is not None:
        path = task.path(number)
        temporary = path.with_suffix(f".{os.getpid()}-{uuid.uuid4().hex}")
        try:
            noted = task.make(number, temporary)
            if noted is not None:
                _write(path.with_suffix(".json"), json.dumps(noted))
            temporary.rename(path)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if task.claims.is_dir():
                _write(task.claims / FAILED, f"{type(error).__name__}: {error}")
            raise


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{uuid.uuid4().hex}")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)


def _claim(task: Task) -> int | None:
    """A part that no process of any machine has taken yet; None if there is none, or one of them failed."""
    while task.claims.is_dir():
        claimed = {path.name for path in task.claims.iterdir()}
        free = [number for number in task.missing if str(number) not in claimed]
        if not free or FAILED in claimed:
            return None
        # Any of them, lest all processes try for the same.
        number = random.choice(free)
        try:
            (task.claims / str(number)).touch(exist_ok=False)
        except (FileExistsError, FileNotFoundError):
            # Another process was faster, or all is done and the leader has cleared up.
            continue
        return number
    return None
