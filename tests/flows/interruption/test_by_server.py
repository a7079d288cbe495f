"""A run whose state on the server is changed while a stage works; tests/survival has the UI's buttons themselves."""

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, Pause
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Failed, Paused, Pending, Running, Scheduled
from small_plan import PUBLISHES, WAITS, small_plan
from watching import alive, wait_for

from flows import local_run
from flows import pretrain_sft as module
from flows.interruption import by_server
from flows.interruption.by_server import RunCancelled, StateChanged
from tasks.ui.labels import WORKER_LABEL
from titanflow.common.errors import StageStopped
from titanflow.runs.manifest import Manifest


@pytest.fixture
def changed(api, tmp_path, monkeypatch):
    """Runs a plan whose training stays; something is done to the flow run on the server, whose id this returns."""
    monkeypatch.setattr(by_server, "LOOK_SECONDS", 0.1)
    plan = small_plan(tmp_path, pretrain=WAITS, publish=PUBLISHES)
    monkeypatch.setattr(module, "make_plan", lambda *arguments: plan)
    monkeypatch.setattr(module, "run_folder", lambda *arguments: plan.folder)
    folder = plan.stages[0].run.folder

    def changed(act, expected, run=module.pretrain_sft):
        def change():
            wait_for(lambda: (folder / "pid").exists(), "the stage")
            ids.append(UUID(Manifest.open(tmp_path / "run").stages["pretrain"].prefect_run))
            # Settings are a thread's own.
            with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
                act(client, ids[0])

        ids = []
        changer = threading.Thread(target=change)
        changer.start()
        with pytest.raises(expected) as error:
            run("tiny")
        changer.join()
        assert (folder / "saved").exists()
        assert not alive(int((folder / "pid").read_text()))
        assert not plan.stages[1].run.folder.exists()
        return ids[0], str(error.value)

    return changed


def put(state):
    return lambda client, run: client.set_flow_run_state(run, state, force=True)


def state_of(run):
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run).state


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (Paused(name="Suspended"), Pause, "The run was suspended"),
        (Failed(message="By hand."), StateChanged, r"The run's state was set to Failed (By hand)"),
        (Scheduled(name="AwaitingRetry"), StateChanged, "The run's state was set to AwaitingRetry"),
    ],
)
def test_the_stage_saves_and_the_state_stays(changed, state, error, message, caplog, wait_for_states):
    run, told = changed(put(state), error)
    assert told == message
    assert state_of(run).name == state.name
    wait_for_states(SimpleNamespace(id=run), {"pretrain": "Crashed"})
    assert f"{message}: the stage saves and ends" in caplog.text
    assert "pretrain was stopped; it saved nothing yet" in caplog.text


def test_a_deleted_run_publishes_nothing(changed):
    run, told = changed(lambda client, run: client.delete_flow_run(run), StateChanged)
    assert told == "The run was deleted on the server"
    with pytest.raises(ObjectNotFound):
        state_of(run)


def test_a_cancelled_run_without_a_worker_ends_cancelled(changed):
    run, told = changed(put(Cancelling()), RunCancelled)
    assert (state_of(run).name, state_of(run).message) == ("Cancelled", f"{told}.")


def test_the_command_line_says_it_in_a_sentence(changed, monkeypatch):
    # It would end the process of the tests, too, some time after the signal.
    monkeypatch.setattr(local_run, "ended_after", lambda seconds: nullcontext())
    _, told = changed(lambda client, run: client.delete_flow_run(run), StageStopped, local_run.run_flow)
    assert told == "The run was deleted on the server. What was saved stays; the next run goes on from there."


class Server:
    """Answers a look with a state, or an error."""

    def __init__(self, state=None, run_count=1, labels=(), error=None):
        self.found = SimpleNamespace(state=state, run_count=run_count, labels=dict.fromkeys(labels, "worker-1"))
        self.error = error

    def read_flow_run(self, run):
        if self.error:
            raise self.error
        return self.found


@pytest.mark.parametrize(
    "server",
    [
        Server(Running()),
        Server(Cancelling(), labels=[WORKER_LABEL]),
        Server(error=ConnectionError("refused")),
        Server(error=ObjectNotFound(Exception("Client error '404 Not Found'"))),
        Server(),
    ],
    ids=["it runs", "its worker cancels it", "the server is away", "a proxy's 404", "no state"],
)
def test_a_run_goes_on(server):
    assert by_server._change(server, SimpleNamespace(id=uuid4(), run_count=1)) is None


@pytest.mark.parametrize("server", [Server(Running(), run_count=2), Server(Pending())])
def test_a_run_that_began_elsewhere_ends_here(server):
    change = by_server._change(server, SimpleNamespace(id=uuid4(), run_count=1))
    assert str(change) == "The run was started again elsewhere"
