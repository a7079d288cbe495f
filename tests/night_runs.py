"""Folders of nights, as runs leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finished_stage import finish_training, write_checkpoint

from titanflow.nightly.night import Night
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest, StageRecord
from titanflow.runs.results import PublishResult, write_result


def write_night(runs: Path, day: str, **changes: Any) -> Path:
    """A night that has begun; what it left follows from the other functions."""
    values = {"run": day, "began": f"{day}T02:00:00+00:00", "ended": f"{day}T03:05:00+00:00", "state": "published"}
    folder = runs / day
    Night(date=day, **(values | changes)).write(folder)
    return folder


def train(folder: Path, skip_rows: int = 0, base: str = "") -> Path:
    """A finished pretraining of 10 steps, 4 rows each, in a night's folder; its checkpoint."""
    stage, checkpoint = folder / "pretrain", folder / "pretrain" / "checkpoint" / "step-10"
    write_checkpoint(checkpoint)
    config = {"training": {"global_batch_size": 4, "skip_rows": skip_rows}, "checkpoint": {"initial_load_path": base}}
    StageRun(stage="pretrain", experiment="e", run=folder.name, folder=stage, config=config).write()
    finish_training(stage, step=10, loss=2.5)
    note(folder, "pretrain", finished="2026-11-21T03:00:00+00:00", digest=f"digest of {folder.name}")
    return checkpoint


def publish(folder: Path, status: Any = "published") -> None:
    """What a night's publish stage came to."""
    write_result(folder / "publish", PublishResult(target="folder", location="/published", status=status))
    note(folder, "publish", finished="2026-11-21T03:05:00+00:00")


def note(folder: Path, stage: str, **values: Any) -> None:
    """A stage's record in the manifest of a night."""
    manifest = Manifest.open(folder)
    manifest.stages[stage] = StageRecord(fingerprint="f", **values)
    (folder / "manifest.json").write_text(manifest.model_dump_json())
