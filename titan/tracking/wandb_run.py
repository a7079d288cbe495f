"""Opens and ends a stage's W&B run, under the identity that the stage's folder has."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, cast

from titan.tracking.metric_names import AXIS, SECTIONS
from titan.tracking.wandb_lineage import model_artifact, used_artifacts
from titanflow.common.errors import StageFailed
from titanflow.common.files import write_text_atomically
from titanflow.common.hub_endpoint import redact
from titanflow.run.contract import StageRun
from titanflow.run.manifest import git_revision
from titanflow.run.results import TrainResult, WandbRecord
from titanflow.run.wandb_record import WANDB_FILE, read_wandb_record, wandb_mode, wandb_record

PATIENCE = {"WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "60"}
"""Seconds that a W&B server may take at a run's start, and for the rest of the data at its end."""

NO_NETWORK = {"WANDB_ERROR_REPORTING": "false"}
"""Else wandb 0.31 sends its own telemetry to the server, or tries to, from an offline run too."""


def open_run(run: StageRun) -> tuple[Any, WandbRecord]:
    """Opens the stage's run, or goes on with it, and notes it in the stage's folder.

    Raises:
        StageFailed: W&B isn't installed; its own errors, where it can't open a run.
    """
    quiet = {"WANDB_SILENT": "true"} if wandb_mode() == "online" else {"WANDB_SILENT": "true", **NO_NETWORK}
    for name, value in {**quiet, **PATIENCE}.items():
        os.environ.setdefault(name, value)
    try:
        import wandb
    except ImportError as error:
        raise StageFailed(
            f"W&B can't be imported ({error}): `pip install wandb`, or metrics.enable_wandb: false"
        ) from error
    model = run.config.get("model") or {}
    record = wandb_record(run, " ".join(str(model[key]) for key in ("name", "flavor") if key in model))
    record.used = used_artifacts(run)
    # Before the server knows of it: a start that is killed goes on in the same run.
    note(run, record)
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
        # Offline nothing can be asked for what it has.
        resume="allow" if record.mode == "online" else None,
    )
    for section in SECTIONS if run.stage != "evaluate" else ():
        opened.define_metric(f"{section}/*", step_metric=AXIS)
    record.entity, record.url = record.entity or opened.entity or "", opened.url or ""
    record.folders = sorted(path.name for path in (run.folder / "wandb").glob(f"*run-*-{record.id}"))
    note(run, record)
    return opened, record


def note(run: StageRun, record: WandbRecord) -> None:
    """Writes ``wandb.json``."""
    write_text_atomically(run.folder / WANDB_FILE, record.model_dump_json(indent=2) + "\n")


def notes() -> str:
    """``WANDB_NOTES``, which the task sets to the experiment's file, and the code's commit."""
    commit = git_revision()
    return "; ".join(part for part in (os.environ.get("WANDB_NOTES", ""), commit and f"code {commit}") if part)


def run_config(run: StageRun, record: WandbRecord) -> dict[str, Any]:
    """What W&B shows as the run's config: the resolved ``run.yaml``, without what looks like a token."""
    settings = run.model_dump(mode="json", exclude={"origins"})
    settings["artifacts_used"] = [artifact.model_dump() for artifact in record.used]
    return redacted(settings)


def redacted(value: Any) -> Any:
    """A copy in which no text has a token or the credentials of a URL."""
    if isinstance(value, dict):
        return {key: redacted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [redacted(one) for one in value]
    if isinstance(value, str):
        return redact(redact(value), os.environ.get("WANDB_API_KEY"))
    return value


def end_run(opened: Any) -> None:
    """Ends a run, and waits for its last rows to be on the disk: as failed while an exception passes."""
    import wandb

    opened.finish(exit_code=1 if sys.exc_info()[0] else 0)
    # finish() returns before wandb 0.31's own process has written all of an offline recording.
    wandb.teardown()


def end_open_run() -> None:
    """Ends this process's run, if one is open, whatever comes of it: what failed has its own reason."""
    opened = open_here()
    if opened is not None:
        with contextlib.suppress(Exception):
            end_run(opened)


def open_here() -> Any:
    """The run that is open in this process; None where there is none."""
    return getattr(sys.modules.get("wandb"), "run", None)


def record_model(run: StageRun, result: TrainResult) -> WandbRecord:
    """Adds the model that a stage made to its run, and ends that; a run that never began isn't begun for it.

    The record is complete whether or not W&B took it.
    """
    record = read_wandb_record(run.folder) or WandbRecord(mode="disabled")
    record.used, record.logged = used_artifacts(run), [model_artifact(run, result)]
    if not record.folders:
        record.id = ""
    if not record.id or wandb_mode() == "disabled":
        return record
    try:
        opened = open_here()
        if opened is None:
            # Another rank logged the metrics, or all steps were trained by an earlier process.
            opened, reopened = open_run(run)
            record.folders = reopened.folders
        link_artifacts(opened, record)
        end_run(opened)
    except Exception as error:
        print(f"W&B doesn't have the model: {error}", flush=True)
    return record


def link_artifacts(opened: Any, record: WandbRecord) -> None:
    """Tells W&B what the run used and what it made; offline it takes only the latter.

    The artifacts are references: W&B gets names, sizes and digests, and no bytes.
    """
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
