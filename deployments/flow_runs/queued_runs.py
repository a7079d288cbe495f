"""Runs that are due while all workers are busy: they get the names that they will have, and say what they wait for.

By default such a run has a name of two random words, and after 15 s the server calls it Late, in red.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ParameterTypeError, PrefectException
from prefect.states import Scheduled

from deployments.flow_runs.in_hand import state_of
from deployments.nightly import is_night
from deployments.work_pool import POOL
from flows.night import day_of
from flows.pretrain_sft import pretrain_sft, title

QUEUED = "Queued"
IN_TURN = "In turn"
"""The state of a night that waits for other experiments' nights alone. Nobody is told that it hasn't started."""
UNTOLD = ("Scheduled", "Late")
"""The states that say nothing of why a run waits."""
FOUND_AFTER = timedelta(seconds=5)
"""How long an idle worker may take to find a run. With ten seconds between two looks, a run is Queued before it is
Late."""


def tell_queued(client: SyncPrefectClient, pool: str, in_hand: Sequence[FlowRun], now: datetime) -> None:
    """Names the runs of a pool that should have begun, and says which runs are ``in_hand`` in their place.

    If no run is, none waits for another: the pool has no worker, and its runs are rightly Late.
    """
    # A run that was told of it has its name, and each look would read its experiment again.
    untold = [run for run in _due(client, pool, now - FOUND_AFTER) if state_of(run).name in UNTOLD]
    for run in untold:
        if pool == POOL and run.name != (name := _name(client, run)):
            client.update_flow_run(run.id, name=name)
        # Once: later states would look like a run that has begun to who is told of nights that never do.
        if in_hand and state_of(client.read_flow_run(run.id)).is_scheduled():
            at_work = ", ".join(sorted(one.name for one in in_hand))
            message = f"Waits until a worker has time for it. When it came, these were at work: {at_work}."
            name = IN_TURN if all(is_night(one.parameters) for one in (run, *in_hand)) else QUEUED
            due = state_of(run).state_details.scheduled_time
            client.set_flow_run_state(run.id, Scheduled(name=name, scheduled_time=due, message=message))


def _due(client: SyncPrefectClient, pool: str, before: datetime) -> list[FlowRun]:
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(before_=before),
        ),
        sort="NEXT_SCHEDULED_START_TIME_ASC",
    )
    return [run for run in found if run.work_pool_name == pool]


def _name(client: SyncPrefectClient, run: FlowRun) -> str:
    """The name that a run gives itself when it begins."""
    try:
        parameters = pretrain_sft.validate_parameters(dict(run.parameters))
    except (ParameterTypeError, PrefectException, ValueError):
        # It will fail, and say why.
        return run.name
    return title(parameters, lambda: day_of(client, run))
