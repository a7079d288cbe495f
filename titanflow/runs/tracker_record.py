"""A stage's run at a tracker: its identity, where it lies, and the artifacts it links.

The id is drawn once and kept beside the checkpoints, in ``<tracker>.json``: a resumed stage continues its run. A stage
that starts anew, with its old folder moved aside, gets a new one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titanflow.common.files import write_text_atomically
from titanflow.runs.results import TrackerRecord, tracked_ids

if TYPE_CHECKING:
    from titanflow.runs.contract import StageRun

TITLES = {"wandb": "W&B", "trackio": "Trackio", "mlflow": "MLflow"}
"""The trackers by the names that their keys, packages and files have."""
KEYS = {"wandb": "enable_wandb", "trackio": "enable_trackio", "mlflow": "enable_mlflow"}
"""What asks for each in a training's ``metrics``."""
MODES = {"dryrun": "offline", "run": "online"}
"""W&B's old words for its modes."""
LONGEST_TAG = 64


def asked_trackers(config: Mapping[str, Any]) -> list[str]:
    """The trackers that a stage's config asks for: ``metrics.enable_<tracker>``, in an evaluation ``<tracker>``."""
    metrics = config.get("metrics") or {}
    asked = [name for name, key in KEYS.items() if metrics.get(key) or config.get(name)]
    return [name for name in asked if tracker_mode(name) != "disabled"]


def tracker_mode(tracker: str) -> str:
    """Whether a tracker's run goes to a server (``online``), or is kept here (``offline``), by the environment.

    W&B has a third mode, ``disabled``.
    """
    if tracker == "wandb":
        mode = os.environ.get("WANDB_MODE", "").strip().lower() or "offline"
        return MODES.get(mode, mode)
    if tracker == "trackio":
        return "online" if os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL") else "offline"
    is_here = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:").startswith(("sqlite:", "file:", "/", "."))
    return "offline" if is_here else "online"


def tracker_record(run: StageRun, tracker: str, model: str = "") -> TrackerRecord:
    """The identity of a stage's run, with the id from the stage's folder if it has one."""
    is_wandb = tracker == "wandb"
    own = [run.experiment, run.stage, model, run.work_group, run.user_name]
    users = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",")] if is_wandb else []
    stored = read_tracker_record(run.folder, tracker)
    return TrackerRecord(
        id=stored.id if stored and stored.id else secrets.token_hex(8),
        mode=tracker_mode(tracker),
        project=(is_wandb and os.environ.get("WANDB_PROJECT")) or run.experiment,
        entity=(is_wandb and (os.environ.get("WANDB_ENTITY") or os.environ.get("WANDB_TEAM"))) or "",
        group=f"{run.experiment}/{run.run}",
        job_type=run.stage,
        name=f"{run.run}-{run.stage}",
        tags=[tag for tag in dict.fromkeys(own + users) if 0 < len(tag) <= LONGEST_TAG],
    )


def tracked(trackers: Mapping[str, TrackerRecord]) -> list[tuple[str, str]]:
    """The trackers that have a run of a stage, as people call them, each with the run's id."""
    return [(TITLES.get(name, name), id_) for name, id_ in tracked_ids(trackers).items()]


def record_file(folder: Path, tracker: str) -> Path:
    """Where a stage keeps its record of a tracker."""
    return folder / f"{tracker}.json"


def note(folder: Path, tracker: str, record: TrackerRecord) -> None:
    """Keeps the record in the stage's folder."""
    write_text_atomically(record_file(folder, tracker), record.model_dump_json(indent=2) + "\n")


def read_tracker_record(folder: Path, tracker: str) -> TrackerRecord | None:
    """The record in a stage's folder; None if there is none, or it can't be read."""
    try:
        return TrackerRecord.model_validate_json(record_file(folder, tracker).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def newest_url(stages: Iterable[Path], tracker: str = "wandb") -> str:
    """The address of the last of these stages' runs at a tracker; empty if there is none, or all were recorded offline.

    ``stages`` are folders in the order of the run.
    """
    records = [read_tracker_record(folder, tracker) for folder in stages]
    urls = [record.url for record in records if record is not None and record.url]
    return urls[-1] if urls else ""
