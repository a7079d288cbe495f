"""Makes a stage's folder ready for its process, and removes that of a refused prepare step."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from titanflow.architectures.outside_base import read_base
from titanflow.runs.checkpoints import PARTS_FOLDER
from titanflow.runs.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.runs.errors import ERROR_FILE
from titanflow.runs.manifest import Manifest, checkpoint_digest

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import StagePlan


def begin_stage(plan: StagePlan) -> None:
    """Makes a stage's folder ready and writes ``run.yaml``.

    Results of other inputs are kept: the old folder becomes ``superseded/<stage>-<n>`` of its run.
    """
    run = plan.run
    if plan.state in ("RUN", "STALE") and any((run.folder / name).exists() for name in (RUN_FILE, RESULT_FILE)):
        # Unfinished work of other inputs is of no use, and may be large.
        shutil.rmtree(run.folder / PARTS_FOLDER, ignore_errors=True)
        superseded = run.folder.parent / "superseded"
        superseded.mkdir(exist_ok=True)
        number = 1 + sum(1 for _ in superseded.glob(f"{run.folder.name}-*"))
        shutil.move(run.folder, superseded / f"{run.folder.name}-{number}")
    run.folder.mkdir(parents=True, exist_ok=True)
    for left in run.folder.glob("scratch-*"):
        shutil.rmtree(left, ignore_errors=True)
    for name in (ERROR_FILE, RESULT_FILE):
        (run.folder / name).unlink(missing_ok=True)
    if run.base is not None:
        base = read_base(run.base)
        # A resumed stage keeps the digest of the base that it began with: LoRA refuses another base.
        begun = StageRun.read(run.folder / RUN_FILE).base_digest if plan.state == "RESUME" else ""
        run.base_digest = begun or (checkpoint_digest(base.checkpoint) if base.checkpoint else "")
    run.write()


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
