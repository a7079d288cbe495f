"""What happens to a stage's folder before its process starts, and after a refused one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.architectures.outside_base import read_base
from titanflow.run.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.run.errors import ERROR_FILE
from titanflow.run.manifest import Manifest, checkpoint_digest

if TYPE_CHECKING:
    from titanflow.plan.stage_plan import StagePlan


def begin_stage(plan: StagePlan) -> None:
    """Makes a stage's folder ready: what other inputs made is moved aside, ``run.yaml`` is written.

    Nothing that was finished is lost: the old folder becomes ``superseded/<stage>-<n>`` of its run.
    """
    run = plan.run
    if plan.state in ("RUN", "STALE") and run.folder.exists():
        _move_aside(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    for name in (ERROR_FILE, RESULT_FILE):
        (run.folder / name).unlink(missing_ok=True)
    if run.base is not None:
        base = read_base(run.base)
        # What a resumed stage began on stays on record: LoRA refuses another.
        begun = StageRun.read(run.folder / RUN_FILE).base_digest if plan.state == "RESUME" else ""
        run.base_digest = begun or (checkpoint_digest(base.checkpoint) if base.checkpoint else "")
    run.write()


def record_start(plan: StagePlan, manifest: Manifest, prefect_run_id: str = "") -> None:
    """Notes in the run's manifest that a stage begins, from what, and what it is expected to take."""
    forecast = plan.forecast.as_json() if plan.forecast else None
    manifest.record_start(plan.run, plan.inputs, forecast, plan.continues, prefect_run_id)


def discard_if_new(plan: StagePlan) -> None:
    """Takes back what a refused prepare step wrote: bad input leaves nothing behind.

    The run's folder goes where this was its first step; one that holds other stages stays.
    """
    folder = plan.run.folder
    shutil.rmtree(folder, ignore_errors=True)
    run = folder.parent
    if not any(path.is_dir() for path in run.iterdir()):
        shutil.rmtree(run)
        for above in (run.parent, run.parent.parent / "data", run.parent.parent):
            if above.is_dir() and not any(above.iterdir()):
                above.rmdir()


def _move_aside(folder: Path) -> None:
    if not (folder / RUN_FILE).exists() and not (folder / RESULT_FILE).exists():
        return
    superseded = folder.parent / "superseded"
    superseded.mkdir(exist_ok=True)
    number = 1 + sum(1 for _ in superseded.glob(f"{folder.name}-*"))
    shutil.move(folder, superseded / f"{folder.name}-{number}")
