"""Against a client that answers as a server does; tests/survival has real ones."""

import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Cancelling, Crashed, Pending, Running
from watching import PATIENCE, alive, wait_for

from deployments import lost_runs
from deployments.lost_runs import FLOW_RUN_ID, LOOKS, LOOKS_PENDING, LostRuns, living_runs
from tasks.process.process import MARK
from tasks.ui.labels import LOST_LABEL, PROCESS_LABEL

KILLED = "Process exited with status code: -9. Process exited due to a SIGKILL signal."
HERE = {"prefect.worker.name": f"{socket.gethostname()}-77", "prefect.worker.type": "process"}


class Server:
    """The part of Prefect's client that is used, on runs that are held here."""

    def __init__(self):
        self.runs, self.history = {}, {}

    def add(self, state, labels=HERE, attempt=1, deployment=True, pool="titanflow"):
        run = FlowRun(
            id=uuid4(),
            flow_id=uuid4(),
            name="tiny",
            state=state,
            labels=labels,
            run_count=attempt,
            deployment_id=uuid4() if deployment else None,
            work_pool_name=pool,
        )
        self.runs[run.id], self.history[run.id] = run, []
        return run.id

    def read_flow_runs(self, flow_run_filter, sort):
        return [run for run in self.runs.values() if run.state.type in flow_run_filter.state.type.any_]

    def set_flow_run_state(self, run, state):
        self.runs[run].state = state
        self.history[run].append((state.name, state.message))


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setattr(lost_runs, "get_client", lambda sync_client: nullcontext(server))
    monkeypatch.setattr(lost_runs, "SETTLED", timedelta.min)
    return server


@pytest.fixture
def look(server):
    told = []
    lost = LostRuns("http://127.0.0.1:9/api", all_are_here=False, tell=told.append)

    def look(times=LOOKS):
        for _ in range(times):
            lost.look()

    look.lost, look.told = lost, told
    return look


def process(run: UUID, marks=""):
    """A process of a run, which waits."""
    env = {**os.environ, FLOW_RUN_ID: str(run), MARK: marks}
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env)
    wait_for(lambda: psutil.Process(started.pid).environ().get(FLOW_RUN_ID), "the process")
    return started


def test_a_run_without_a_process_crashes_and_is_started_again(server, look):
    run = server.add(Running())
    look(LOOKS - 1)
    assert server.history[run] == []
    look(1)
    (crashed, cause), (scheduled, why) = server.history[run]
    assert (crashed, scheduled) == ("Crashed", "AwaitingRetry")
    assert cause.startswith("the run's process is gone without an error")
    assert (
        why == "Attempt 2 of 3, after: the run's process is gone without an error: its worker or its machine went down"
    )


def test_a_healthy_run_is_left_alone(server, look):
    run = server.add(Running())
    healthy = process(run, marks="worker")
    try:
        look(2 * LOOKS)
        assert server.history[run] == []
    finally:
        healthy.communicate()
    look()
    assert server.history[run][0][0] == "Crashed"


def test_a_stage_without_its_flow_is_no_run_and_is_killed_when_its_time_is_up(server, look):
    run = server.add(Running())
    orphan = process(run, marks="worker/stage")
    try:
        look(LOOKS - 1)
        assert run not in living_runs()
        assert alive(orphan.pid)
        look(1)
        assert orphan.wait(PATIENCE) == -9
        assert server.history[run][0][0] == "Crashed"
    finally:
        orphan.kill()
        orphan.communicate()


def test_a_pending_run_s_process_has_longer_to_start(server, look):
    run = server.add(Pending())
    look(LOOKS_PENDING - 1)
    assert server.history[run] == []
    look(1)
    assert server.history[run][0][0] == "Crashed"


def test_a_run_that_was_being_cancelled_is_cancelled_and_stays_so(server, look):
    run = server.add(Cancelling())
    look(2 * LOOKS)
    assert [name for name, _ in server.history[run]] == ["Cancelled"]


def test_a_killed_flow_is_started_again_as_often_as_its_config_says(server, look):
    soon = datetime.now(UTC) + timedelta(seconds=1)
    first, last = (
        server.add(Crashed(message=KILLED, timestamp=soon), {**HERE, LOST_LABEL: 1}, attempt) for attempt in (1, 2)
    )
    look(2)
    assert server.history[first] == [("AwaitingRetry", f"Attempt 2 of 2, after: {KILLED}")]
    assert server.history[last] == []
    assert look.told.count("tiny crashed in attempt 2 of 2 and isn't started again") == 1


def test_a_crash_that_the_worker_may_tell_again_is_waited_out(server, look, monkeypatch):
    monkeypatch.setattr(lost_runs, "SETTLED", timedelta(minutes=1))
    run = server.add(Crashed(message=KILLED))
    look()
    assert server.history[run] == []


def test_what_crashed_otherwise_or_long_ago_or_was_cancelled_is_left_alone(server, look):
    old = datetime.now(UTC) - timedelta(hours=1)
    runs = [
        server.add(Crashed(message="Execution was aborted by a termination signal.")),
        server.add(Crashed(message=KILLED, timestamp=old)),
        server.add(Cancelled()),
    ]
    look()
    assert [server.history[run] for run in runs] == [[], [], []]


def test_runs_that_crash_with_their_worker_are_started_again(server, look):
    mine, other = server.add(Running()), server.add(Running(), {**HERE, "prefect.worker.name": "elsewhere-5"})
    look.lost.worker_ended(HERE["prefect.worker.name"])
    look.lost.worker_ended("elsewhere-5")
    for run in (mine, other):
        server.runs[run].state = Crashed(message="Execution was aborted by a termination signal.")
    look(1)
    assert server.history[mine] == [
        (
            "AwaitingRetry",
            f"Attempt 2 of 3, after: the worker {HERE['prefect.worker.name']} ended, and its runs with it",
        )
    ]
    assert server.history[other] == []


def test_another_machine_s_runs_are_its_own(server, look):
    runs = [
        server.add(Running(), {**HERE, "prefect.worker.name": "elsewhere-5"}),
        server.add(Running(), {**HERE, "prefect.worker.type": "kubernetes"}),
        server.add(Pending(), {}),
        server.add(Running(), {PROCESS_LABEL: "elsewhere 1 2.00"}, deployment=False, pool=None),
    ]
    look(LOOKS_PENDING)
    assert [server.history[run] for run in runs] == [[], [], [], []]


def test_on_a_server_of_its_own_every_run_is_here(server, look):
    look.lost.all_are_here = True
    run = server.add(Running(), {**HERE, "prefect.worker.name": "before-the-container-s-restart-5"})
    look()
    assert [name for name, _ in server.history[run]] == ["Crashed", "AwaitingRetry"]


def test_a_run_that_was_started_by_hand_is_found_by_its_label_and_not_started_again(server, look):
    created = psutil.Process().create_time()
    label = f"{socket.gethostname()} {os.getpid()} {{:.2f}}"
    lives = server.add(Running(), {PROCESS_LABEL: label.format(created)}, deployment=False, pool=None)
    gone = server.add(Running(), {PROCESS_LABEL: label.format(created - 5)}, deployment=False, pool=None)
    look(2 * LOOKS)
    assert server.history[lives] == []
    assert [name for name, _ in server.history[gone]] == ["Crashed"]


def test_a_server_that_is_away_is_told_once_and_asked_again(server, monkeypatch):
    def away(sync_client):
        raise ConnectionError("refused")

    told = []
    lost = LostRuns("http://127.0.0.1:9/api", all_are_here=True, tell=told.append)
    with monkeypatch.context() as patched:
        patched.setattr(lost_runs, "get_client", away)
        for _ in range(3):
            lost.look()
    assert told == ["lost runs can't be looked for (ConnectionError: refused); trying again"]
    run = server.add(Running())
    for _ in range(LOOKS):
        lost.look()
    assert server.history[run][0][0] == "Crashed"


def test_a_run_of_another_pool_is_for_that_pool_s_machine(server, look):
    elsewhere = {**HERE, "prefect.worker.name": "other-77"}
    run, of_small = server.add(Running()), server.add(Running(), labels=elsewhere, pool="small")
    # As on the machine whose own the server is.
    look.lost.all_are_here = True
    look()
    assert server.runs[of_small].state.is_running()
    assert not server.runs[run].state.is_running()
    LostRuns("http://127.0.0.1:9/api", all_are_here=False, tell=print, pool="small").look()
    assert server.runs[of_small].state.is_running()
    server.runs[of_small].labels.update(HERE)
    small = LostRuns("http://127.0.0.1:9/api", all_are_here=False, tell=print, pool="small")
    for _ in range(LOOKS):
        small.look()
    assert server.history[of_small][0][0] == "Crashed"
