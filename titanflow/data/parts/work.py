"""Divides a prepare stage's work into parts, which the processes of one machine or of several make.

A part is a file. Which parts there are depends on the data alone, and what they make is put together in their order, so
that no number of processes or machines changes a byte. A part appears under its name when it is whole. Those that a
killed stage leaves are taken over by the next one.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.digests import digest
from titanflow.common.errors import StageLost

if TYPE_CHECKING:
    from titanflow.data.parts.crew import Crew

PART_BYTES = 32 << 20
"""The size of a part: a process takes a second to start, and a part should take it many."""
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


@dataclass(frozen=True)
class Work:
    """Who does a prepare stage's work, and where.

    Attributes:
        num_proc: processes of each machine at most (None: one a core).
        scratch: a folder for temporary files.
        kept: a folder for parts that outlive a killed stage; None: there is none.
        crew: the machines of a cluster's job; None: this one alone.
    """

    num_proc: int | None
    scratch: Path
    kept: Path | None = None
    crew: Crew | None = None

    def cache_file(self) -> str:
        return str(self.scratch / f"rows-{uuid.uuid4().hex}.arrow")

    def parts(self, make: Make, count: int, key: str = "") -> list[Part]:
        """Has all parts made; ``key`` stands for all that they depend on: with one, finished parts are kept.

        Raises:
            StageLost: a process or a machine was lost.
        """
        name = digest([key, count]) if key else uuid.uuid4().hex
        folder = (self.kept if key and self.kept else self.scratch) / name
        folder.mkdir(parents=True, exist_ok=True)
        claims = (self.crew.folder if self.crew else self.scratch) / f"claims-{uuid.uuid4().hex}"
        task = Task(make, count, folder, claims)
        if missing := task.missing:
            claims.mkdir(parents=True)
            if self.crew and len(missing) > 1:
                self.crew.announce(task)
            take_parts(task, self.num_proc)
            if self.crew:
                self.crew.wait_for(task)
        return [Part(task.path(number)) for number in range(count)]


@dataclass(frozen=True)
class Part:
    """A finished part."""

    path: Path

    @cached_property
    def noted(self) -> Any:
        """What its maker noted of it."""
        return json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8"))


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
    return int(os.environ.get("SLURM_CPUS_ON_NODE") or os.cpu_count() or 1)


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
            (task.claims / str(number)).open("x").close()
        except FileExistsError:
            continue
        return number
    return None
