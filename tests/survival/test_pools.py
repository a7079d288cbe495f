"""A stage in a second work pool: a real server, and a worker of that pool."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from lasting_server import lasting_server
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Paused
from watching import alive, wait_for

sys.path.append(str(Path(__file__).parents[1] / "flows"))
import small_plan

from deployments.serve import working
from deployments.stage_pool import deploy_stages
from deployments.work_pool import ensure_pool
from flows import pretrain_sft as module
from flows import stage_in_pool as pools
from flows.interruption.by_server import StateChanged
from titanflow.common.errors import StageFailed
from titanflow.runs.manifest import Manifest

pytestmark = pytest.mark.survival
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def pool(prefect_home, tmp_path_factory):
    logs = tmp_path_factory.mktemp("pool")
    with lasting_server(prefect_home) as url:
        ensure_pool(url, "small")
        env = {"PREFECT_API_URL": url, "PREFECT_HOME": str(prefect_home)}
        with working(env, 1, logs, pool="small"):
            deploy_stages(url, "small", HERE.parents[1], f"{HERE}/small_stage.py:run_stage")
            yield url


@pytest.fixture
def planned(pool, tmp_path, monkeypatch):
    """Plans a pretraining in the pool ``small``; returns its stage."""

    def plan_of(program):
        plan = small_plan.small_plan(tmp_path, pretrain=getattr(small_plan, program))
        plan.stages[0].run.config["launcher"] = {"pool": "small"}
        # The plan is asked for there by the experiment's file.
        plan.config.path = tmp_path / program
        monkeypatch.setattr(plan.config, "stage", lambda name: SimpleNamespace(name=name, base=None))
        monkeypatch.setattr(module, "make_plan", lambda *arguments: plan)
        wait_for(lambda: not refused(plan), "the pool's worker")
        return plan.stages[0]

    return plan_of


def refused(plan):
    try:
        pools.check_pools(plan)
    except module.ConfigError as error:
        return str(error)
    return ""


def run(tmp_path, program):
    return module.pretrain_sft(program, configs=str(tmp_path))


def test_the_stage_runs_there_and_its_result_is_read_here(planned, tmp_path):
    planned("TRAINS")
    run(tmp_path, "TRAINS")
    manifest = Manifest.open(tmp_path / "run")
    assert manifest.is_done("pretrain", "pretrain-1")
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(manifest.stages["pretrain"].prefect_run)
        assert client.read_deployment(flow_run.deployment_id).work_pool_name == "small"
        assert flow_run.state.is_completed()
        assert flow_run.parent_task_run_id is not None


def test_its_failure_s_words_come_through(planned, tmp_path):
    planned("FAILS")
    with pytest.raises(StageFailed, match="pretrain failed on rank 1: ValueError: loss is nan"):
        run(tmp_path, "FAILS")


def test_one_that_is_killed_goes_on_in_a_second_attempt(planned, tmp_path):
    planned("IS_KILLED_ONCE")
    run(tmp_path, "IS_KILLED_ONCE")
    assert Manifest.open(tmp_path / "run").is_done("pretrain", "pretrain-1")
    assert not (tmp_path / "run/superseded").exists()


def test_a_run_that_ends_lets_its_stage_save_there(planned, tmp_path, monkeypatch):
    folder = planned("WAITS").run.folder
    polled = threading.Event()

    ended = pools._ended

    def interrupted(flow_run, seconds=None, **options):
        if polled.is_set():
            return ended(flow_run, seconds, **options)
        wait_for(lambda: (folder / "pid").exists(), "the stage")
        polled.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(pools, "_ended", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "WAITS")
    assert (folder / "saved").exists()
    assert not alive(int((folder / "pid").read_text()))


def act(pool, folder, do):
    """Does something to a flow run as soon as the stage works; returns the thread."""

    def wait_and_do():
        wait_for(lambda: (folder / "pid").exists(), "the stage")
        # Settings are a thread's own.
        with temporary_settings({PREFECT_API_URL: pool}), get_client(sync_client=True) as client:
            newest = client.read_flow_runs(limit=2, sort="START_TIME_DESC")
            do(client, *(run.id for run in newest))

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("do", "error"),
    [
        (lambda client, stage, run: client.set_flow_run_state(run, Paused(name="Suspended"), force=True), Pause),
        (lambda client, stage, run: client.delete_flow_run(run), StateChanged),
        (lambda client, stage, run: client.delete_flow_run(stage), StageFailed),
    ],
    ids=["the run is suspended", "the run is deleted", "the stage's run is deleted"],
)
def test_the_stage_there_saves_and_ends(planned, pool, tmp_path, do, error):
    folder = planned("WAITS").run.folder
    thread = act(pool, folder, do)
    with pytest.raises(error):
        run(tmp_path, "WAITS")
    thread.join()
    wait_for(lambda: not alive(int((folder / "pid").read_text())), "the stage's end")
    assert (folder / "saved").exists()


def test_a_cancel_there_is_a_failure_here(planned, pool, tmp_path):
    folder = planned("WAITS").run.folder

    thread = act(pool, folder, lambda client, stage, run: client.set_flow_run_state(stage, Cancelling()))
    with pytest.raises(StageFailed, match="was cancelled in pool small"):
        run(tmp_path, "WAITS")
    thread.join()
    assert (folder / "saved").exists()
