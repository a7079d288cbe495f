"""A planned stop of ``serve``: the runs in hand save, end, and go on when it is started again.

Prefect's worker would kill its runs without telling the server, where they would stay Running for ever.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from deployments.flow_runs.in_hand import ended_while_cancelled, runs_in_hand, server_time, state_of
from deployments.flow_runs.lost_runs import living_runs
from deployments.work_pool import POOL
from flows.interruption.by_server import LOOK_SECONDS
from tasks.process.process import GRACE_SECONDS
from titanflow.common.console import tell

PUT_OFF = "Put off"
"""The state of such a run; any worker of its pool takes it up."""
SAVE_SECONDS = LOOK_SECONDS + GRACE_SECONDS + 10.0
"""How long the runs may take to hear of it, to save and to end."""
POLL_SECONDS = 0.5


@contextlib.contextmanager
def planned_stop(url: str, worker: str, pool: str = POOL) -> Iterator[None]:
    """Puts off the runs that a worker has in hand, waits until they have saved, and leaves the worker's end to the
    block."""
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        runs = runs_in_hand(client, worker, pool)
        # What a person cancels just now isn't to go on.
        cancelled = {run.id for run in runs if state_of(run).is_cancelling()}
        for run in runs:
            if run.id not in cancelled:
                tell(f"{run.name} saves and stops; it goes on when this is started again")
                # Planned from now on, whatever becomes of this process and the server. The worker mustn't take it.
                _put_off(client, run, server_time(client) + timedelta(seconds=SAVE_SECONDS))
        deadline = time.monotonic() + SAVE_SECONDS
        while {run.id for run in runs} & living_runs() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            # While these saved, the worker had time for runs that were queued.
            for run in {run.id: run for run in (*runs, *runs_in_hand(client, worker, pool))}.values():
                with contextlib.suppress(ObjectNotFound):
                    _ended(client, run, run.id in cancelled)


def _ended(client: SyncPrefectClient, run: FlowRun, was_cancelled: bool) -> None:
    """Gives a run whose process has ended its state."""
    state = state_of(client.read_flow_run(run.id))
    if was_cancelled or state.is_cancelling():
        if state.is_crashed() or not state.is_final():
            client.set_flow_run_state(run.id, ended_while_cancelled(), force=True)
    elif state.is_pending():
        # It hadn't begun, and is queued again.
        client.set_flow_run_state(run.id, Scheduled(scheduled_time=run.expected_start_time), force=True)
    # A run that began just now crashed with its worker; one that was about to end has ended.
    elif state.is_crashed() or not state.is_final():
        # By its first time it goes before the runs that were queued behind it.
        _put_off(client, run, run.expected_start_time)


def _put_off(client: SyncPrefectClient, run: FlowRun, begins: datetime | None) -> None:
    message = f"titanflow's serve was stopped on {socket.gethostname()}: the run goes on when it is started again."
    with contextlib.suppress(ObjectNotFound):
        client.set_flow_run_state(run.id, Scheduled(name=PUT_OFF, scheduled_time=begins, message=message), force=True)
