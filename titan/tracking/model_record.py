"""A finished training stage's model at the trackers."""

from __future__ import annotations

from titan.tracking.lineage import model_artifact
from titan.tracking.stores.store_record import asked_stores, record_in_store
from titan.tracking.wandb_run import record_in_wandb
from titanflow.runs.contract import StageRun
from titanflow.runs.results import TrackerRecord, TrainResult


def record_model(run: StageRun, result: TrainResult) -> dict[str, TrackerRecord]:
    """Adds the model to the stage's runs and ends them; the records are complete whatever a tracker took.

    W&B's is always there: it has the lineage of a stage without any tracker, too.
    """
    logged = [model_artifact(run, result)]
    in_stores = {tracker: record_in_store(run, tracker, logged) for tracker in asked_stores(run)}
    return {"wandb": record_in_wandb(run, logged), **in_stores}
