"""What a stage's loggers have recorded, and what they should have."""

from __future__ import annotations

from typing import Any

from titan.tracking.metric_names import rows
from titan.tracking.metrics_file import MetricsFile
from titan.tracking.wandb_files import history, recordings
from titanflow.runs.contract import METRICS_FILE, StageRun
from titanflow.runs.tracker_record import read_tracker_record


def expected_rows(run: StageRun) -> dict[int, dict[str, float]]:
    """Step → values, as ``metrics.jsonl`` has them."""
    return rows(MetricsFile(run.folder / METRICS_FILE).records())


def recorded_rows(run: StageRun) -> list[tuple[int, dict[str, Any]]]:
    """(Step, values) of all of a run's offline recordings, without W&B's own values."""
    record = read_tracker_record(run.folder, "wandb")
    assert record is not None
    return [
        (step, {name: value for name, value in values.items() if not name.startswith("_")})
        for recording in recordings(run.folder, record.id)
        for step, values in history(recording)
    ]
