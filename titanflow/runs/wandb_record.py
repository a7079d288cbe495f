"""A stage's W&B run: its identity, where it lies, and the artifacts it links.

The id is drawn once and kept beside the checkpoints, in ``wandb.json``: a resumed stage continues its W&B run. A stage
that starts anew, with its old folder moved aside, gets a new one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.runs.results import WandbRecord

if TYPE_CHECKING:
    from titanflow.runs.contract import StageRun

WANDB_FILE = "wandb.json"
MODES = {"dryrun": "offline", "run": "online"}
"""W&B's old words for its modes."""
LONGEST_TAG = 64


def wandb_mode() -> str:
    """``WANDB_MODE``; offline if it is unset."""
    mode = os.environ.get("WANDB_MODE", "").strip().lower() or "offline"
    return MODES.get(mode, mode)


def wandb_record(run: StageRun, model: str = "") -> WandbRecord:
    """The identity of a stage's run, with the id from the stage's folder if it has one."""
    own = [run.experiment, run.stage, model, run.work_group, run.user_name]
    users = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",")]
    stored = read_wandb_record(run.folder)
    return WandbRecord(
        id=stored.id if stored and stored.id else secrets.token_hex(8),
        mode=wandb_mode(),
        project=os.environ.get("WANDB_PROJECT") or run.experiment,
        entity=os.environ.get("WANDB_ENTITY") or os.environ.get("WANDB_TEAM") or "",
        group=f"{run.experiment}/{run.run}",
        job_type=run.stage,
        name=f"{run.run}-{run.stage}",
        tags=[tag for tag in dict.fromkeys(own + users) if 0 < len(tag) <= LONGEST_TAG],
    )


def read_wandb_record(folder: Path) -> WandbRecord | None:
    """The record in a stage's folder; None if there is none, or it can't be read."""
    try:
        return WandbRecord.model_validate_json((folder / WANDB_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def newest_url(stages: Iterable[Path]) -> str:
    """The address of the last of these stages' W&B runs; empty if there is none, or all were recorded offline.

    ``stages`` are folders in the order of the run.
    """
    urls = [record.url for folder in stages if (record := read_wandb_record(folder)) is not None and record.url]
    return urls[-1] if urls else ""
