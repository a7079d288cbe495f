"""A finished stage in the trackers that have a store: its model's lineage, or its scores."""

from __future__ import annotations

from collections.abc import Mapping

from titan.tracking.lineage import used_artifacts
from titan.tracking.run_record import reason
from titan.tracking.stores.store import STORES, has_begun, open_store
from titanflow.runs.contract import StageRun
from titanflow.runs.results import ArtifactRecord, TrackerRecord
from titanflow.runs.tracker_record import TITLES, asked_trackers, read_tracker_record, record_file, tracker_mode


def asked_stores(run: StageRun) -> list[str]:
    return [tracker for tracker in asked_trackers(run.config) if tracker in STORES]


def record_in_store(run: StageRun, tracker: str, logged: list[ArtifactRecord]) -> TrackerRecord:
    """Adds what a training stage made to its run, if that ever began.

    The record is complete even if the tracker didn't take the lineage.
    """
    record = read_tracker_record(run.folder, tracker) or TrackerRecord(mode=tracker_mode(tracker))
    record.used, record.logged = used_artifacts(run), logged
    if not has_begun(record):
        record.id = ""
        return record
    try:
        store, opened = open_store(run, tracker)
        record.id, record.url = opened.id, opened.url
        store.link(record)
        store.end(failed=False)
    except Exception as error:
        print(f"{TITLES[tracker]} doesn't have the model: {reason(error)}", flush=True)
    return record


def score_in_store(
    run: StageRun, tracker: str, scores: Mapping[str, float], models: list[ArtifactRecord]
) -> TrackerRecord:
    """Logs one row of scores to a run of its own.

    Raises:
        Exception: the tracker's own, of which there is no common kind.
    """
    # A repeated evaluation is a new run.
    record_file(run.folder, tracker).unlink(missing_ok=True)
    store, record = open_store(run, tracker)
    store.log(0, scores)
    record.used = [*record.used, *models]
    store.link(record)
    store.end(failed=False)
    return record
