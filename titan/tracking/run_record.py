"""What every tracker is told of a stage: its identity, its config without secrets, and what it was made from."""

from __future__ import annotations

import os
from typing import Any

from titan.tracking.lineage import used_artifacts
from titanflow.common.credentials import is_secret, redact
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import git_revision
from titanflow.runs.results import TrackerRecord
from titanflow.runs.tracker_record import note, tracker_record

SERVICES = ("WANDB_", "MLFLOW_", "TRACKIO_")
"""How the variables of the trackers' own settings begin."""


def begin_record(run: StageRun, tracker: str) -> TrackerRecord:
    """The identity of the stage's run, kept in its folder before a server knows of it.

    A start that is killed on the way therefore continues in the same run.
    """
    model = run.config.get("model") or {}
    record = tracker_record(run, tracker, " ".join(str(model[key]) for key in ("name", "flavor") if key in model))
    record.used = used_artifacts(run)
    note(run.folder, tracker, record)
    return record


def notes() -> str:
    """The experiment's file, which the task hands on in ``WANDB_NOTES``, and the code's commit."""
    commit = git_revision()
    return "; ".join(part for part in (os.environ.get("WANDB_NOTES", ""), commit and f"code {commit}") if part)


def run_config(run: StageRun, record: TrackerRecord) -> dict[str, Any]:
    """The run's config at a tracker: the resolved ``run.yaml`` without anything like a token."""
    settings = run.model_dump(mode="json", exclude={"origins"})
    settings["artifacts_used"] = [artifact.model_dump() for artifact in record.used]
    return redacted(settings)


def redacted(value: Any) -> Any:
    """A copy without tokens and URLs' credentials in its texts."""
    if isinstance(value, dict):
        return {key: redacted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [redacted(one) for one in value]
    if isinstance(value, str):
        for name, secret in os.environ.items():
            if name.startswith(SERVICES) and is_secret(name) and secret:
                value = redact(value, secret)
        return redact(value)
    return value


def reason(error: Exception) -> str:
    """A tracker's error for the log: its text may quote an address with a password in it, or a token."""
    return str(redacted(str(error) or repr(error)))
