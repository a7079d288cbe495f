"""The caller's side of a stage in another pool, with the pool's answers faked; tests/survival has a real worker."""

from types import SimpleNamespace
from uuid import uuid4

import pytest
from finished_stage import finish_training
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Failed
from small_plan import PUBLISHES, TRAINS, small_plan

from flows import pretrain_sft as module
from flows import stage_in_pool as pools
from flows.stage_in_pool import check_pools, failure
from titanflow.common.errors import ConfigError, StageFailed, StageLost


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan whose pretraining is to run in the pool ``small``."""
    plan = small_plan(tmp_path, pretrain=TRAINS, publish=PUBLISHES)
    plan.stages[0].run.config["launcher"] = {"pool": "small"}
    monkeypatch.setattr(module, "make_plan", lambda *arguments: plan)
    return plan


@pytest.fixture
def pool(plan, monkeypatch):
    """Answers for the pool: the last state of each attempt in turn; ``asked`` is what each was given."""
    folder = plan.stages[0].run.folder
    pool = SimpleNamespace(states=[], asked=[], cancelled=[])

    def run_deployment(name, **arguments):
        with get_client(sync_client=True) as client:
            flow_run = client.create_flow_run(module.pretrain_sft, name=arguments["flow_run_name"])
        pool.asked.append((name, arguments["parameters"]))
        return FlowRun(id=flow_run.id, flow_id=uuid4(), name=flow_run.name)

    def ended(flow_run, seconds=None, on_look=None):
        state = pool.states.pop(0)
        if isinstance(state, BaseException):
            raise state
        if state.is_completed():
            folder.mkdir(parents=True, exist_ok=True)
            finish_training(folder, checkpoint=folder, step=4, loss=4.0)
        return state

    monkeypatch.setattr(pools, "run_deployment", run_deployment)
    monkeypatch.setattr(pools, "_ended", ended)
    monkeypatch.setattr(pools, "_why_not", lambda stage: "")
    monkeypatch.setattr(pools, "_variables", lambda plan: {})
    monkeypatch.setattr(pools, "_cancel", lambda flow_run, seconds: pool.cancelled.append(flow_run.name))
    return pool


def test_it_is_asked_for_the_planned_stage_and_started_again_when_it_is_lost(api, plan, pool, tmp_path):
    pool.states = [Crashed(message="the worker ended"), Failed(name="StageLost", message="killed"), Completed()]
    plan.config.spec.retries.lost = 2
    assert module.pretrain_sft("tiny", overrides={"pretrain.training.steps": 4}).published == "/published"
    assert [(name, parameters["attempt"]) for name, parameters in pool.asked] == [
        ("run-stage/small", 1),
        ("run-stage/small", 2),
        ("run-stage/small", 3),
    ]
    parameters = pool.asked[0][1]
    assert parameters["settings"] == {
        "pretrain.training.steps": 4,
        "work_group": "speech",
        "workspace": str(tmp_path),
        "pretrain.launcher.pool": None,
    }
    assert (parameters["stage"], parameters["fingerprint"]) == ("pretrain", "pretrain-1")
    assert parameters["folder"] == str(tmp_path / "run/pretrain")


def test_a_run_that_is_ended_cancels_it(api, plan, pool):
    pool.states = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        module.pretrain_sft("tiny")
    assert pool.cancelled == ["tiny/main pretrain"]


def test_a_run_there_that_is_deleted_is_a_failure_here(api, plan, pool):
    pool.states = [ObjectNotFound(Exception("404"))]
    with pytest.raises(StageFailed, match="pretrain's run in pool small was deleted; the next run goes on from what"):
        module.pretrain_sft("tiny")


def test_a_pool_that_nobody_works_for_is_refused_before_anything_is_written(api, plan, tmp_path):
    with pytest.raises(ConfigError, match="found 'small': no such pool runs stages at http") as error:
        module.pretrain_sft("tiny")
    assert "titanflow serve --pool small; or unset launcher.pool" in str(error.value)
    assert not (tmp_path / "run").exists()
    plan.stages[0].state = "CACHED"
    check_pools(plan)


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (Failed(name="ConfigError", message="a.yaml:3: unknown key"), ConfigError, "a.yaml:3: unknown key"),
        (Failed(name="StageFailed", message="loss is nan"), StageFailed, "loss is nan"),
        (Failed(name="StageLost", message="killed"), StageLost, "killed"),
        (Failed(message="no module"), StageFailed, "pretrain failed in pool small: no module"),
        (Crashed(message="its worker ended"), StageLost, "pretrain was lost in pool small: its worker ended"),
        (Cancelled(), StageFailed, "pretrain was cancelled in pool small; the next run goes on from what it saved"),
    ],
)
def test_how_it_ended_there_is_how_it_ends_here(plan, state, kind, message):
    error = failure(plan.stages[0], state)
    assert (type(error), str(error)) == (kind, message)
