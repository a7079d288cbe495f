"""Takes from the folder of a training what the same training with more steps wouldn't have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from titanflow.common.files import write_text_atomically
from titanflow.runs.checkpoints import step_folders
from titanflow.runs.contract import DURING_FOLDER, EXPORT_FOLDER, METRICS_FILE, RESULT_FILE, RUN_FILE, StageRun
from titanflow.runs.metrics import EVALUATIONS_FILE, SAMPLES_FILE, read_metrics

RECORDS = (METRICS_FILE, EVALUATIONS_FILE, SAMPLES_FILE)


def part_with(run: StageRun, begins: int, superseded: Path) -> Path | None:
    """Removes from a stage's folder all that a run with more steps wouldn't have, and returns where it lies now.

    Checkpoints after ``begins``, and the export that was made of them, go to ``superseded``, a folder that isn't there
    yet, with a copy of the records. A longer run that passes through the last checkpoint leaves nothing. A kill in
    between leaves a stage that can still be extended.
    """
    _forget_ends(run, begins)
    later = [path for step, path in step_folders(run.folder / "checkpoint").items() if step > begins]
    if not later:
        return None
    (superseded / "checkpoint").mkdir(parents=True)
    for name in (RUN_FILE, RESULT_FILE, *RECORDS):
        if (run.folder / name).is_file():
            shutil.copy2(run.folder / name, superseded / name)
    _forget_scores(run, begins)
    if (run.folder / EXPORT_FOLDER).is_dir():
        (run.folder / EXPORT_FOLDER).rename(superseded / EXPORT_FOLDER)
    for path in later:
        path.rename(superseded / "checkpoint" / path.name)
    return superseded


def _forget_scores(run: StageRun, begins: int) -> None:
    """Drops scores and answers of later steps, and checkpoints that are held: these steps are made anew."""
    for name in (EVALUATIONS_FILE, SAMPLES_FILE):
        _keep(run.folder / name, lambda record: record["step"] <= begins)
    for step, path in step_folders(run.folder / DURING_FOLDER).items():
        if step > begins:
            shutil.rmtree(path)


def _forget_ends(run: StageRun, begins: int) -> None:
    """Drops the records of a step that was logged or validated only because it was the last."""
    config = run.config
    every = {"loss": config["metrics"]["log_freq"], "validation_loss": config["validation"]["freq"]}

    def is_due(record: dict[str, Any]) -> bool:
        key = "loss" if "loss" in record else "validation_loss"
        return record["step"] == 1 or record["step"] % every[key] == 0

    _keep(run.folder / METRICS_FILE, lambda record: record["step"] > begins or is_due(record))


def _keep(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    if path.is_file():
        kept = [record for record in read_metrics(path) if wanted(record)]
        write_text_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))
