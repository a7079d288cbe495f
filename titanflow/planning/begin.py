"""Makes a stage's folder ready for its process, and removes that of a refused prepare step."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.architectures.outside_base import read_base
from titanflow.planning.extension.left_behind import part_with
from titanflow.runs.checkpoints import PARTS_FOLDER
from titanflow.runs.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.runs.errors import ERROR_FILE
from titanflow.runs.manifest import Manifest, checkpoint_digest

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import StagePlan


SUPERSEDED = "superseded"
KEPT_FAILURES = 10
"""How many attempts of a stage that made nothing are kept, for their logs."""


def begin_stage(plan: StagePlan) -> Path | None:
    """Makes a stage's folder ready and writes ``run.yaml``; returns where the old one lies now, if there was one.

    A stage that doesn't resume begins in a new folder. The old one, with its results and its log, becomes
    ``superseded/<stage>-<n>`` of its run. Of those that made nothing the newest are kept. An extended stage goes on in
    its folder; what the longer run doesn't pass through is set aside.
    """
    run, aside = plan.run, None
    if plan.state in ("RUN", "STALE") and any((run.folder / name).exists() for name in (RUN_FILE, RESULT_FILE)):
        # Unfinished work of other inputs is of no use, and may be large.
        shutil.rmtree(run.folder / PARTS_FOLDER, ignore_errors=True)
        aside = set_aside(run.folder)
    if plan.state == "EXTEND" and plan.extension is not None:
        aside = part_with(run, plan.extension.begins, next_aside(run.folder))
    run.folder.mkdir(parents=True, exist_ok=True)
    for left in run.folder.glob("scratch-*"):
        shutil.rmtree(left, ignore_errors=True)
    for name in (ERROR_FILE, RESULT_FILE):
        (run.folder / name).unlink(missing_ok=True)
    if run.base is not None:
        base = read_base(run.base)
        # A resumed stage keeps the digest of the base that it began with: LoRA refuses another base.
        begun = StageRun.read(run.folder / RUN_FILE).base_digest if plan.state in ("RESUME", "EXTEND") else ""
        run.base_digest = begun or (checkpoint_digest(base.checkpoint) if base.checkpoint else "")
    run.write()
    return aside


def set_aside(folder: Path) -> Path:
    """Moves a folder of a run to ``superseded``, and returns its new place."""
    place = next_aside(folder)
    place.parent.mkdir(exist_ok=True)
    folder.rename(place)
    places = [place.parent / f"{folder.name}-{number}" for number in _numbers(folder)]
    failures = [path for path in places if not _made_anything(path)]
    for path in failures[:-KEPT_FAILURES]:
        shutil.rmtree(path, ignore_errors=True)
    return place


def next_aside(folder: Path) -> Path:
    """Where a folder of a run goes if it is set aside; numbers go on where older folders were removed."""
    return folder.parent / SUPERSEDED / f"{folder.name}-{1 + max(_numbers(folder), default=0)}"


def _numbers(folder: Path) -> list[int]:
    """The numbers of the folders that were set aside, oldest first."""
    prefix = f"{folder.name}-"
    numbers = (path.name.removeprefix(prefix) for path in (folder.parent / SUPERSEDED).glob(f"{prefix}*"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def _made_anything(folder: Path) -> bool:
    # A damaged checkpoint is for its owner to judge.
    return (folder / RESULT_FILE).exists() or any(folder.glob("checkpoint/*"))


def record_start(plan: StagePlan, manifest: Manifest, prefect_run_id: str = "") -> None:
    """Notes in the run's manifest that a stage begins, from what, and what it is expected to take."""
    forecast = plan.forecast.as_json() if plan.forecast else None
    manifest.record_start(plan.run, plan.inputs, forecast, plan.continues, prefect_run_id)


def discard_if_new(plan: StagePlan) -> None:
    """Removes what a refused prepare step wrote, since bad input must leave nothing behind.

    The run's folder goes too, unless it holds other stages.
    """
    folder = plan.run.folder
    shutil.rmtree(folder, ignore_errors=True)
    run = folder.parent
    if not any(path.is_dir() for path in run.iterdir()):
        shutil.rmtree(run)
        for above in (run.parent, run.parent.parent / "data", run.parent.parent):
            if above.is_dir() and not any(above.iterdir()):
                above.rmdir()
