"""A stage's run in MLflow: a database in the workspace, or whatever ``MLFLOW_TRACKING_URI`` names."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from titan.tracking.run_record import notes, redacted, run_config
from titan.tracking.stores.store import store_folder
from titanflow.common.files import hidden_sibling
from titanflow.files.yaml_source import flatten
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import git_revision
from titanflow.runs.results import ArtifactRecord, TrackerRecord

PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Seconds for a server's answer, and how often it is asked again; MLflow's own are minutes."""
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
"""MLflow sends usage data otherwise, and tells of each table that it makes."""
OUR_ID = "titanflow.id"
"""The tag with the id that was drawn before the run was made: a start that is killed between the two finds it again."""
NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")
"""What MLflow takes in no name, such as the comma before an lm-eval filter; an underscore stands in its place."""
BATCH, PARAMS, LONGEST_NAME, LONGEST_VALUE, LONGEST_DIGEST = 1000, 100, 250, 6000, 36
"""MLflow's limits."""


class MlflowStore:
    """A run of an open client."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id
        self._names: dict[str, str] = {}

    def known(self) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for name in self.client.get_run(self.run_id).data.metrics:
            for point in self.client.get_metric_history(self.run_id, name):
                found.setdefault(point.step, set()).add(name)
        return found

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = iter([Metric(mlflow_name(name), float(value), now, step) for name, value in values.items()])
        for batch in batches(metrics, BATCH):
            self.client.log_batch(self.run_id, metrics=batch)

    def link(self, record: TrackerRecord) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        def used(one: ArtifactRecord) -> Any:
            # A digest may be a SHA-256, of which MLflow takes the beginning.
            source = json.dumps({"uri": one.reference})
            dataset = Dataset(one.name, one.digest[:LONGEST_DIGEST] or "unknown", "uri", source)
            return DatasetInput(dataset, [InputTag("mlflow.data.context", one.type)])

        if record.used:
            self.client.log_inputs(self.run_id, [used(one) for one in record.used])
        for one in record.logged:
            self.client.set_tag(self.run_id, f"titanflow.{one.type}", one.model_dump_json())

    def end(self, failed: bool) -> None:
        self.client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


def open_run(run: StageRun, record: TrackerRecord, begun: bool) -> MlflowStore:
    """Opens the stage's run, and gives ``record`` MLflow's id and the run's address."""
    for name, value in {**PATIENCE, **QUIET}.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI") or local_database(store_folder(run) / "mlflow.db")
    client = MlflowClient(tracking_uri=uri)
    experiment = experiment_id(client, record.project)
    record.id = record.id if begun else find_or_create(client, experiment, record)
    client.update_run(record.id, status="RUNNING")
    page = f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{record.id}"
    record.url = redacted(page if record.mode == "online" else uri)
    add_params(client, record.id, flatten(run_config(run, record)))
    return MlflowStore(client, record.id)


def local_database(path: Path) -> str:
    """The address of a database on this machine, made whole or not at all.

    MLflow's own start makes some fifty tables, one after another: one that is killed on the way leaves a database that
    no later start can open.
    """
    if not path.exists():
        from mlflow import MlflowClient

        fresh = hidden_sibling(path)
        MlflowClient(tracking_uri=f"sqlite:///{fresh}").search_experiments()
        # If another stage was first, its database stays.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)
        fresh.unlink()
    return f"sqlite:///{path}"


def experiment_id(client: Any, name: str) -> str:
    if (found := client.get_experiment_by_name(name)) is None:
        from mlflow.exceptions import MlflowException

        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Another run of the same experiment has made it meanwhile.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def find_or_create(client: Any, experiment: str, record: TrackerRecord) -> str:
    if found := client.search_runs([experiment], f"tags.`{OUR_ID}` = '{record.id}'", max_results=1):
        return str(found[0].info.run_id)
    tags = {
        OUR_ID: record.id,
        "titanflow.group": record.group,
        "titanflow.stage": record.job_type,
        "titanflow.tags": ", ".join(record.tags),
        "mlflow.note.content": notes(),
        "mlflow.source.git.commit": git_revision(),
    }
    tags = {key: value for key, value in tags.items() if value}
    return str(client.create_run(experiment, tags=tags, run_name=record.name).info.run_id)


def add_params(client: Any, run_id: str, config: Mapping[str, Any]) -> None:
    """Adds the config's values that the run lacks: MLflow refuses another value of a parameter that it has."""
    from mlflow.entities import Param

    there = client.get_run(run_id).data.params
    named = {mlflow_name(key): str(value)[:LONGEST_VALUE] for key, value in config.items()}
    new = iter([Param(key, value) for key, value in named.items() if key not in there])
    for batch in batches(new, PARAMS):
        client.log_batch(run_id, params=batch)


def mlflow_name(name: str) -> str:
    return NOT_IN_NAMES.sub("_", name)[:LONGEST_NAME]


def batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(items, size)):
        yield batch
