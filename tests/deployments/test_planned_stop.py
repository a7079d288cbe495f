"""Against a client that answers as a server does; tests/deployments/test_serve.py has a real one."""

from contextlib import nullcontext

import pytest
from prefect.states import Cancelled, Cancelling, Completed, Running
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
    assert stopped(server) == [PUT_OFF, "Cancelled"]


def test_a_run_that_is_deleted_just_now_leaves_the_others_their_states(server):
    first, deleted, ended = (server.add(Running()) for _ in range(3))

    def meanwhile():
        del server.runs[deleted]
        server.runs[ended].state = Completed()

    assert stopped(server, meanwhile) == [PUT_OFF, "Completed"]
    assert [name for name, _ in server.history[first]] == [PUT_OFF, PUT_OFF]


def test_a_run_that_is_cancelled_while_it_saves_stays_cancelled(server):
    run = server.add(Running())

    def meanwhile():
        server.runs[run].state = Cancelled()

    assert stopped(server, meanwhile) == ["Cancelled"]
