"""Opens and ends a stage's W&B run, whose identity is kept in the stage's folder."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, cast

from titan.tracking.lineage import used_artifacts
from titan.tracking.metric_names import AXIS, SECTIONS
from titan.tracking.run_record import begin_record, notes, reason, run_config
from titanflow.common.errors import StageFailed
from titanflow.runs.contract import StageRun
from titanflow.runs.results import ArtifactRecord, TrackerRecord
from titanflow.runs.tracker_record import note, read_tracker_record, tracker_mode

PATIENCE = {"WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "60"}
"""Seconds for a W&B server to start a run, and to take the rest of the data at its end."""
NO_NETWORK = {"WANDB_ERROR_REPORTING": "false"}
"""Otherwise wandb 0.31 sends telemetry, or tries to, even from an offline run."""


def open_run(run: StageRun) -> tuple[Any, TrackerRecord]:
    """Opens or continues the stage's run, and records it in the stage's folder.

    Raises:
        StageFailed: W&B isn't installed. If it can't open a run, it raises its own errors.
    """
    quiet = {"WANDB_SILENT": "true"} if tracker_mode("wandb") == "online" else {"WANDB_SILENT": "true", **NO_NETWORK}
    for name, value in {**quiet, **PATIENCE}.items():
        os.environ.setdefault(name, value)
    try:
        import wandb
    except ImportError as error:
        raise StageFailed(
            f"W&B can't be imported ({error}): `pip install wandb`, or metrics.enable_wandb: false"
        ) from error
    record = begin_record(run, "wandb")
    opened = wandb.init(
        project=record.project,
        entity=record.entity or None,
        group=record.group,
        job_type=record.job_type,
        name=record.name,
        id=record.id,
        tags=record.tags,
        notes=notes(),
        config=run_config(run, record),
        dir=str(run.folder),
        mode=cast(Any, record.mode),
        # Offline there is no server to ask for the run's history.
        resume="allow" if record.mode == "online" else None,
    )
    for section in SECTIONS if run.kind != "evaluate" else ():
        opened.define_metric(f"{section}/*", step_metric=AXIS)
    record.entity, record.url = record.entity or opened.entity or "", opened.url or ""
    record.folders = sorted(path.name for path in (run.folder / "wandb").glob(f"*run-*-{record.id}"))
    note(run.folder, "wandb", record)
    return opened, record


def end_run(opened: Any) -> None:
    """Ends a run, as failed during an exception, and waits until its last rows are on the disk."""
    import wandb

    opened.finish(exit_code=1 if sys.exc_info()[0] else 0)
    # finish() returns before wandb 0.31's own process has written the whole offline recording.
    wandb.teardown()


def end_open_run() -> None:
    """Ends this process's W&B run, if any; errors are ignored, lest they hide why the stage failed."""
    if (opened := open_here()) is not None:
        with contextlib.suppress(Exception):
            end_run(opened)


def open_here() -> Any:
    return getattr(sys.modules.get("wandb"), "run", None)


def record_in_wandb(run: StageRun, logged: list[ArtifactRecord]) -> TrackerRecord:
    """Adds what a training stage made to its run, if that ever began, and ends the run.

    The record is complete even if W&B didn't take the model.
    """
    record = read_tracker_record(run.folder, "wandb") or TrackerRecord(mode="disabled")
    record.used, record.logged = used_artifacts(run), logged
    if not record.folders:
        record.id = ""
    if not record.id or tracker_mode("wandb") == "disabled":
        return record
    try:
        opened = open_here()
        if opened is None:
            # Another rank logged the metrics, or an earlier process trained all steps.
            opened, reopened = open_run(run)
            record.folders = reopened.folders
        link_artifacts(opened, record)
        end_run(opened)
    except Exception as error:
        print(f"W&B doesn't have the model: {reason(error)}", flush=True)
    return record


def link_artifacts(opened: Any, record: TrackerRecord) -> None:
    """Tells W&B the run's inputs (only online) and outputs, as references: names, sizes and digests, no contents."""
    import wandb

    def artifact(one: Any) -> Any:
        made = wandb.Artifact(one.name, one.type, metadata={"digest": one.digest})
        if one.reference:
            made.add_reference(one.reference, checksum=False)
        return made

    if record.mode == "online":
        for one in record.used:
            opened.use_artifact(artifact(one), aliases=one.aliases)
    for one in record.logged:
        opened.log_artifact(artifact(one), aliases=one.aliases)
