"""What the flow's tests look at: the task runs of a flow run, simulated nights, and who is told of them."""

import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from watching import wait_for

# The finished runs that publishing is tested with.
sys.path.append(str(Path(__file__).parent.parent / "titanflow" / "publish"))


@pytest.fixture
def wait_for_states():
    """Waits for a flow run's task runs to have these states: Prefect writes them in the background."""
    by_name = {}

    def look(flow_run, wanted):
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        with get_client(sync_client=True) as client:
            by_name.update({run.name: run.state_name for run in client.read_task_runs(flow_run_filter=of_run)})
        return by_name == wanted

    return lambda flow_run, wanted: wait_for(lambda: look(flow_run, wanted), f"{wanted}, found {by_name}")


@pytest.fixture
def nights(api, tmp_path, monkeypatch):
    from simulated_nights import Nights

    return Nights(tmp_path, monkeypatch)


@pytest.fixture
def receiver():
    from receiver import Receiver

    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
