"""A stage's prepared rows on the own disks of its machines (``launcher.local_data``)."""

from __future__ import annotations

import os
from pathlib import Path

from titan.process.rank_store import told_by_all
from titanflow.data.local_copy import copied, local_place, make_copy
from titanflow.runs.contract import StageRun


def bring_rows(run: StageRun) -> None:
    """Copies a stage's rows to each machine's disk; every rank calls it, before the process group is made.

    A machine's first rank copies. All wait for the last machine here, as long as a copy takes: a process group would
    give up earlier.

    Raises:
        ConfigError: the folder can't be used on a machine.
    """
    if (place := _place(run)) is None:
        return
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for folder in filter(None, (run.data.train, run.data.validation)):
            make_copy(folder, place, lambda line: print(line, flush=True))
    told_by_all("local_data", "")


def nearest(run: StageRun, folder: Path) -> Path:
    """Where this machine reads a prepared folder: its copy, if there is one."""
    place = _place(run)
    return folder if place is None else copied(folder, place)


def _place(run: StageRun) -> Path | None:
    named = (run.config.get("launcher") or {}).get("local_data")
    return local_place(named) if named else None
