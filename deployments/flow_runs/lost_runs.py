"""Flow runs whose process vanished: they get their true state, and are started again.

Prefect 3 leaves a run Running for ever when its worker was stopped or its machine went down. Its own remedy, an
automation on missing heartbeats, marks a healthy run as crashed when its heartbeats are late. This looks at the machine
instead: a run whose process isn't there any more has ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, Scheduled, State

from deployments.flow_runs.in_hand import (
    IN_HAND,
    WORKER_TYPE_LABEL,
    ended_while_cancelled,
    runs_in_hand,
    runs_of_pool,
    server_time,
    state_of,
)
from deployments.flow_runs.lost_machines import LostMachines
from deployments.flow_runs.queued_runs import tell_queued
from deployments.work_pool import POOL, host_of
from tasks.process.process import MARK
from tasks.ui.labels import DELAY_LABEL, LOST_LABEL, PROCESS_LABEL, WORKER_LABEL, labelled_process_lives
from titanflow.config.keys.experiment import Retries

FLOW_RUN_ID = "PREFECT__FLOW_RUN_ID"
"""Environment variable of a run's process, set by Prefect's worker and inherited by all descendants."""
LOOKS = 3
"""A run is lost when its process is missing so many times in a row: one just ended may still report its state."""
LOOKS_PENDING = 6
"""The same for a run that isn't Running yet, whose process may still be starting."""
KILLED = re.compile(r"status code:? -9\b")
"""A worker's message about a run's process that was killed."""
NO_MACHINE = "the run's machine is gone: its worker doesn't answer, and the run shows no sign of life"
LOST = "the run's process is gone without an error: its worker or its machine went down"
AGAIN = re.compile(r"Attempt \d+ of \d+, after: ")
"""The message of a run that is started again here; a person's Retry has another."""
AWAITING_RETRY = "AwaitingRetry"
SETTLED = timedelta(seconds=5)
"""A worker may report a crash twice; after this time a state will not change any more."""
RECENTLY = timedelta(minutes=5)


class LostRuns:
    """Looks after the runs that this machine's workers took or that were started by hand; called every ten seconds.

    It serves one ``pool``; other pools' machines look after their runs themselves, and so do other machines of this
    pool, until they are gone. All times are the server's, whose clock may differ from this machine's.
    """

    def __init__(self, url: str, tell: Callable[[str], None], pool: str = POOL) -> None:
        self.url, self._tell, self._pool = url, tell, pool
        self._machines = LostMachines(pool)
        self._missed: dict[UUID, int] = {}
        self._in_hand: dict[UUID, FlowRun] = {}
        self._causes: dict[UUID, str] = {}
        self._given_up: set[UUID] = set()
        self._is_away = False
        self._began = time.monotonic()

    def look(self) -> None:
        """Corrects the states of lost runs and starts them again; an unreachable server is asked later."""
        self._ask(self._look)

    def worker_ended(self, name: str) -> None:
        """Notes the runs that a worker had in hand when it ended: they crash with it."""

        def note(client: SyncPrefectClient) -> None:
            for run in runs_in_hand(client, name, self._pool):
                self._causes[run.id] = f"the worker {name} ended, and its runs with it"

        self._ask(note)

    def _look(self, client: SyncPrefectClient) -> None:
        living, now = living_runs(), server_time(client)
        self._machines.look(client)
        in_hand = runs_of_pool(client, self._pool, IN_HAND)
        self._tell_deleted(client, {run.id: run for run in in_hand if _is_here(run)})
        missing = [run for run in in_hand if self._is_missing(run, living)]
        self._missed = {run.id: self._missed.get(run.id, 0) + 1 for run in missing}
        for run in missing:
            if self._missed[run.id] >= (LOOKS_PENDING if state_of(run).is_pending() else LOOKS):
                self._mend(client, run)
        tell_queued(client, self._pool, in_hand, now)
        for run in runs_of_pool(client, self._pool, [StateType.CRASHED]):
            if now - state_of(run).timestamp < SETTLED:
                continue
            if run.id in self._causes or (_is_here(run) and self._was_killed(run, now)):
                self._start_again(client, run, self._causes.get(run.id) or state_of(run).message or "", now)
                self._causes.pop(run.id, None)

    def _tell_deleted(self, client: SyncPrefectClient, in_hand: dict[UUID, FlowRun]) -> None:
        """A deleted run saves and ends by itself (``flows.interruption.by_server``), but its page is gone."""
        for run in [self._in_hand[name] for name in self._in_hand.keys() - in_hand.keys()]:
            try:
                client.read_flow_run(run.id)
            except ObjectNotFound:
                self._tell(f"{run.name} was deleted on the server: it saves and ends")
        self._in_hand = in_hand

    def _is_missing(self, run: FlowRun, living: set[UUID]) -> bool:
        if _is_here(run):
            return run.id not in living and not _lives_by_label(run)
        return _is_a_workers(run) and self._machines.has(run)

    def _mend(self, client: SyncPrefectClient, run: FlowRun) -> None:
        kill_rest(run.id)
        if state_of(run).is_cancelling():
            state: State = ended_while_cancelled()
        else:
            cause = self._causes.setdefault(run.id, LOST if _is_here(run) else NO_MACHINE)
            state = Crashed(message=f"{cause}. What was saved stays; the next run goes on from there.")
        client.set_flow_run_state(run.id, state)
        self._tell(f"{run.name} was lost: {state.name}")

    def _was_killed(self, run: FlowRun, now: datetime) -> bool:
        since = now - min(RECENTLY, timedelta(seconds=time.monotonic() - self._began))
        return state_of(run).timestamp > since and KILLED.search(state_of(run).message or "") is not None

    def _start_again(self, client: SyncPrefectClient, run: FlowRun, cause: str, now: datetime) -> None:
        lost = int(run.labels.get(LOST_LABEL, Retries.lost))
        if run.deployment_id is None:
            return
        attempt = automatic_attempt(client.read_flow_run_states(run.id))
        if attempt > lost:
            # Once for each crash: a Retry may follow, and another crash.
            if state_of(run).id not in self._given_up:
                self._given_up.add(state_of(run).id)
                self._tell(f"{run.name} crashed in attempt {attempt} of {lost + 1} and isn't started again")
            return
        delay = timedelta(seconds=float(run.labels.get(DELAY_LABEL, Retries.delay)))
        again = f"ttempt {attempt + 1} of {lost + 1}"
        message, begins = f"A{again}, after: {cause}", now + delay
        client.set_flow_run_state(run.id, Scheduled(name=AWAITING_RETRY, scheduled_time=begins, message=message))
        self._tell(f"{run.name} is started again: a{again}")

    def _ask(self, question: Callable[[SyncPrefectClient], None]) -> None:
        try:
            with temporary_settings({PREFECT_API_URL: self.url}), get_client(sync_client=True) as client:
                question(client)
            self._is_away = False
        except Exception as error:
            if not self._is_away:
                self._tell(f"lost runs can't be looked for ({type(error).__name__}: {error}); trying again")
            self._is_away = True


def automatic_attempt(states: Iterable[State]) -> int:
    """The number of a run's present attempt since a person last started it: a Retry, a Resume and a planned stop use up
    no automatic attempt."""
    attempt = 1
    for state in sorted(states, key=lambda state: state.timestamp):
        if state.name == AWAITING_RETRY:
            attempt = attempt + 1 if AGAIN.match(state.message or "") else 1
    return attempt


def living_runs() -> set[UUID]:
    """The flow runs with a process on this machine; a stage that outlived its flow counts as none."""
    return {run for run, process in _processes() if not is_stage(process)}


def _is_here(run: FlowRun) -> bool:
    if worker := run.labels.get(WORKER_LABEL):
        return _is_a_workers(run) and host_of(str(worker)) == socket.gethostname()
    process = run.labels.get(PROCESS_LABEL)
    return process is not None and str(process).rsplit(" ", 2)[0] == socket.gethostname()


def _is_a_workers(run: FlowRun) -> bool:
    """Whether a worker that starts processes took the run; it may not have said so yet."""
    if WORKER_LABEL in run.labels:
        return run.labels.get(WORKER_TYPE_LABEL) == "process"
    return PROCESS_LABEL not in run.labels and run.work_pool_name is not None


def _lives_by_label(run: FlowRun) -> bool:
    """Whether the process of a run that no worker started is alive."""
    process = run.labels.get(PROCESS_LABEL)
    return process is not None and WORKER_LABEL not in run.labels and labelled_process_lives(str(process))


def kill_rest(run: UUID) -> None:
    """Kills what is left of a run whose flow is gone; its ranks had their time to save."""
    for found, process in _processes():
        if found == run:
            with contextlib.suppress(psutil.Error):
                process.kill()


def is_stage(process: psutil.Process) -> bool:
    """Whether a process is a stage's or below one: it has the mark of a starter inside its worker."""
    with contextlib.suppress(psutil.Error):
        own = [mark for mark in os.environ.get(MARK, "").split("/") if mark]
        return len(process.environ().get(MARK, "").split("/")) > len(own) + 1
    return False


def _processes() -> Iterator[tuple[UUID, psutil.Process]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ValueError):
            if process.status() != psutil.STATUS_ZOMBIE and (run := process.environ().get(FLOW_RUN_ID)):
                yield UUID(run), process
