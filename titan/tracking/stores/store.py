"""What a tracker with a store of its own does for a stage, and where the store lies on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

from titan.tracking.run_record import begin_record
from titanflow.runs.contract import StageRun
from titanflow.runs.results import TrackerRecord
from titanflow.runs.tracker_record import note, read_tracker_record

STORES = {"trackio": "titan.tracking.stores.trackio_store", "mlflow": "titan.tracking.stores.mlflow_store"}
"""The module of each tracker, which is imported only where the tracker is asked for."""
STORE_FOLDER = ".trackers"
"""Lies in the workspace, so that one dashboard shows all its runs."""


class Store(Protocol):
    """A stage's run in a tracker's store. Rows that it has are never taken back."""

    def known(self) -> dict[int, set[str]]:
        """The names that the run has of each step."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def link(self, record: TrackerRecord) -> None:
        """Tells the tracker the stage's inputs and outputs, as references without contents."""

    def end(self, failed: bool) -> None:
        """Ends the run once its last rows are stored."""


def open_store(run: StageRun, tracker: str) -> tuple[Store, TrackerRecord]:
    """Opens or continues the stage's run; the record in the stage's folder then has its id and address.

    Raises:
        ImportError: the tracker isn't installed. If it can't open a run, it raises its own errors.
    """
    stored = read_tracker_record(run.folder, tracker)
    record = begin_record(run, tracker)
    opening: Callable[[StageRun, TrackerRecord, bool], Store] = import_module(STORES[tracker]).open_run
    store = opening(run, record, has_begun(stored))
    note(run.folder, tracker, record)
    return store, record


def has_begun(record: TrackerRecord | None) -> bool:
    """Whether the run was opened before; until then its id is only drawn."""
    return record is not None and bool(record.url)


def store_folder(run: StageRun) -> Path:
    """Where stores lie unless the environment names another place: in the workspace, three folders above a stage."""
    folder = run.folder.absolute().parents[2] / STORE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder
