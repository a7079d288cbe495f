"""Against a client that answers as a server does; tests/deployments/test_serve.py has a real one."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Pending, Running
from stand_in_server import HERE, StandInServer

from deployments.flow_runs import planned_stop as module
from deployments.flow_runs.planned_stop import PUT_OFF, planned_stop

WORKER = HERE["prefect.worker.name"]


@pytest.fixture
def server(monkeypatch):
    server = StandInServer()
    monkeypatch.setattr(module, "get_client", lambda sync_client: nullcontext(server))
    return server


def stopped(server, meanwhile=lambda: None):
    """The states that runs have afterwards; ``meanwhile`` is what a person does while they save."""
    with planned_stop("http://127.0.0.1:9/api", WORKER):
        meanwhile()
    return [run.state.name for run in server.runs.values()]


def test_a_run_that_is_cancelled_just_now_does_not_go_on(server):
    server.add(Running())
    server.add(Cancelling())
    completes = server.add(Cancelling())

    def meanwhile():
        server.runs[completes].state = Completed()

    assert stopped(server, meanwhile) == [PUT_OFF, "Cancelled", "Completed"]


def test_a_run_that_is_deleted_just_now_leaves_the_others_their_states(server):
    first, deleted, ended = (server.add(Running()) for _ in range(3))

    def meanwhile():
        del server.runs[deleted]
        server.runs[ended].state = Completed()

    assert stopped(server, meanwhile) == [PUT_OFF, "Completed"]
    assert [name for name, _ in server.history[first]] == [PUT_OFF, PUT_OFF]


def test_a_run_that_the_worker_takes_meanwhile_is_queued_again(server):
    server.add(Running())
    due = datetime.now(UTC) - timedelta(minutes=9)

    def meanwhile():
        server.add(Pending(), expected_start_time=due)
        server.add(Crashed(message="Execution was aborted by a termination signal."))
        server.add(Pending(), {**HERE, "prefect.worker.name": "elsewhere-5"})

    assert stopped(server, meanwhile) == [PUT_OFF, "Scheduled", PUT_OFF, "Pending"]
    assert list(server.runs.values())[1].state.state_details.scheduled_time == due


def test_a_run_that_is_cancelled_while_it_saves_stays_cancelled(server):
    run = server.add(Running())

    def meanwhile():
        server.runs[run].state = Cancelled()

    assert stopped(server, meanwhile) == ["Cancelled"]
