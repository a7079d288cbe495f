"""Divides a prepare stage's work into parts, which the processes of one machine or of several make.

A part is a file. Which parts there are depends on the data alone, and what they make is put together in their order, so
that no number of processes or machines changes a byte. A part appears under its name when it is whole. Those that a
killed stage leaves are taken over by the next one.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from titanflow.common.digests import digest
from titanflow.data.parts.crew import Crew
from titanflow.data.parts.task import Make, Task, take_parts
from titanflow.files.own_files import readable

PART_BYTES = 32 << 20
"""The size of a part: a process takes a second to start, and a part should take it many."""


@dataclass(frozen=True)
class Part:
    """A finished part."""

    path: Path

    @cached_property
    def noted(self) -> Any:
        """What its maker noted of it."""
        path = self.path.with_suffix(".json")
        with readable(path, f"remove the folder {path.parent}: the next run makes its parts again"):
            return json.loads(path.read_text(encoding="utf-8"))


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
