"""An evaluation's scores at the trackers."""

from __future__ import annotations

import logging

from titan.tracking.lineage import evaluated_artifacts
from titan.tracking.metric_names import named_scores
from titan.tracking.run_record import reason
from titan.tracking.stores.store_record import score_in_store
from titan.tracking.wandb_run import end_run, link_artifacts, open_run
from titanflow.config.keys.after_training import Evaluate
from titanflow.runs.contract import StageRun
from titanflow.runs.results import ArtifactRecord, EvaluateResult, TrackerRecord
from titanflow.runs.tracker_record import TITLES, asked_trackers, record_file, tracker_mode

logger = logging.getLogger("titanflow.evaluate")


def log_scores(run: StageRun, settings: Evaluate, result: EvaluateResult) -> dict[str, TrackerRecord]:
    """Logs one row of ``eval/<model>/<task>/<metric>`` to a run of its own at each tracker that is asked for.

    A tracker's own variables set place and account. A failure is only logged, lest computed scores be lost; the record
    then has no id.
    """
    models, scores = evaluated_artifacts(result), named_scores(result.scores)
    records = {}
    for tracker in asked_trackers(vars(settings)):
        records[tracker] = TrackerRecord(mode=tracker_mode(tracker), used=models)
        try:
            log = _log_to_wandb if tracker == "wandb" else score_in_store
            records[tracker] = log(run, tracker, scores, models)
        except Exception as error:
            logger.warning("the scores aren't in %s: %s", TITLES[tracker], reason(error))
    return records


def _log_to_wandb(run: StageRun, tracker: str, scores: dict[str, float], models: list[ArtifactRecord]) -> TrackerRecord:
    # A repeated evaluation is a new run.
    record_file(run.folder, tracker).unlink(missing_ok=True)
    opened, record = open_run(run)
    opened.log(scores)
    record.used = [*record.used, *models]
    link_artifacts(opened, record)
    end_run(opened)
    return record
