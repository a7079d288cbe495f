"""What a stage's loggers have recorded, and what they should have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
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


STORED = {
    "trackio": """
import json, sys
from trackio import Api
from trackio.sqlite_storage import SQLiteStorage

found = {}
for run in Api().runs(sys.argv[1]):
    logs = SQLiteStorage.get_logs(sys.argv[1], run.name, run_id=run.id)
    found[run.id] = [(row.pop("step"), row) for row in logs if row.pop("timestamp")]
print(json.dumps(found))
""",
    "mlflow": """
import json, os, sys
from mlflow import MlflowClient

client = MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
experiment = client.get_experiment_by_name(sys.argv[1]).experiment_id
found = {}
for run in reversed(client.search_runs([experiment])):
    found[run.info.run_id] = [
        (point.step, {name: point.value})
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    ]
print(json.dumps(found))
""",
}
"""Prints what a tracker's own client reads from its store: by run the (step, values) of a project."""


def store_environment(folder: Path) -> dict[str, str]:
    """Where the stores of a workspace lie, as the clients are told."""
    stores = folder / ".trackers"
    return {"TRACKIO_DIR": str(stores / "trackio"), "MLFLOW_TRACKING_URI": f"sqlite:///{stores / 'mlflow.db'}"}


def stored_rows(run: StageRun, tracker: str) -> dict[str, dict[int, list[tuple[str, float]]]]:
    """By run's id and step the names and values of the workspace's local store, a name as often as it stands there."""
    command = [sys.executable, "-c", STORED[tracker], run.experiment]
    environment = {**os.environ, **store_environment(run.folder.parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, dict[int, list[tuple[str, float]]]] = {}
    for id_, rows_ in json.loads(done.stdout.splitlines()[-1]).items():
        steps = found.setdefault(id_, {})
        for step, values in rows_:
            steps.setdefault(step, []).extend(values.items())
    return found
