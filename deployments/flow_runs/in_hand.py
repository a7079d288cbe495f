"""The runs that a worker of processes has in hand, by the server."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled, State

from deployments.work_pool import POOL
from tasks.ui.labels import WORKER_LABEL

IN_HAND = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
WORKER_TYPE_LABEL = "prefect.worker.type"
JUST_NOW = timedelta(seconds=30)
"""A run that crashed so short before its worker's end crashed with it: one signal may have ended both."""


def runs_in_hand(client: SyncPrefectClient, worker: str, pool: str) -> list[FlowRun]:
    """The runs that a worker had in hand just now. A run that isn't a process of it is none: a pod outlives it."""
    since = server_time(client) - JUST_NOW
    found = runs_of_pool(client, pool, [*IN_HAND, StateType.CRASHED])
    mine = {WORKER_LABEL: worker, WORKER_TYPE_LABEL: "process"}
    return [
        run
        for run in found
        if mine.items() <= run.labels.items() and (not state_of(run).is_crashed() or state_of(run).timestamp > since)
    ]


def runs_of_pool(client: SyncPrefectClient, pool: str, types: list[StateType]) -> list[FlowRun]:
    """A pool's runs in states of these types, the newest first; those that no pool started are of the whole runs'."""
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types))),
        sort="EXPECTED_START_TIME_DESC",
    )
    return [run for run in found if (run.work_pool_name or POOL) == pool]


def state_of(run: FlowRun) -> State:
    """The state of a run that the server told of, which always has one."""
    assert run.state is not None
    return run.state


def server_time(client: SyncPrefectClient) -> datetime:
    """The present time by the server, whose clock may differ from this machine's."""
    return parsedate_to_datetime(client.hello().headers["date"])


def ended_while_cancelled() -> State:
    """The last state of a run that a person cancelled, and whose worker didn't live to say so."""
    return Cancelled(message="The run's process ended while it was being cancelled.")
