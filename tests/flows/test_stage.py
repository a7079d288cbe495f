"""A stage planned again where it runs: the same one, or a refusal."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny_experiment import write_tiny_experiment

from flows import stage as module
from flows.parameters.run_request import RunRequest
from flows.stage import same_stage
from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan
from titanflow.planning.view import command_lines


@pytest.fixture
def asked(tmp_path):
    settings = {"sft.launcher.pool": "small", "sft.optimizer.lr": 0.003}
    return RunRequest("tiny", str(write_tiny_experiment(tmp_path)), None, settings)


def test_it_is_planned_alike_from_another_folder_and_runs_on_the_spot(asked, tmp_path, monkeypatch):
    plan = make_plan(*asked)
    stage = plan.stage("sft")
    assert stage.reason.endswith("; in pool small")
    assert any(line.startswith("sft (RUN, in pool small):") for line in command_lines(plan))
    monkeypatch.chdir("/")
    there = make_plan(*asked.elsewhere(plan, stage), False)
    own = same_stage(there, "sft", str(stage.run.folder), stage.run.fingerprint)
    assert own.pool == ""
    assert there.run == plan.run
    # Where it runs changes nothing that is made.
    alone = make_plan(asked.experiment, asked.configs, None, {"sft.optimizer.lr": 0.003})
    assert alone.stage("sft").run.fingerprint == stage.run.fingerprint


def test_another_folder_or_other_inputs_are_refused(asked, tmp_path):
    plan = make_plan(*asked)
    stage = plan.stage("sft")
    with pytest.raises(ConfigError, match=r"sft.launcher.pool: the stage is planned in .* here") as error:
        same_stage(plan, "sft", "/elsewhere/sft", stage.run.fingerprint)
    assert "all machines need the workspace at the same path" in str(error.value)
    with pytest.raises(ConfigError, match="would be made from other inputs here"):
        same_stage(plan, "sft", str(stage.run.folder), "another")
    without = replace(plan, stages=[one for one in plan.stages if one.stage != "sft"])
    with pytest.raises(ConfigError, match="not planned here"):
        same_stage(without, "sft", str(stage.run.folder), stage.run.fingerprint)


def test_it_shows_other_machines_that_it_lives(tmp_path, monkeypatch):
    sign, labelled, seen = tmp_path / ".holder-sft", [], []

    def task(stage, manifest, return_state):
        seen.append(sign.exists())
        return SimpleNamespace(result=lambda: None)

    monkeypatch.setattr(module, "label_run", lambda retries, who, sign: labelled.append(sign))
    monkeypatch.setattr(module, "make_plan", lambda *arguments: SimpleNamespace(folder=tmp_path))
    own = SimpleNamespace(state="RUN", run=SimpleNamespace(folder=tmp_path / "sft"))
    monkeypatch.setattr(module, "same_stage", lambda *arguments: own)
    monkeypatch.setattr(module, "task_of", lambda plan: task)
    state = module.run_stage.fn("tiny", None, "main", {}, "sft", str(tmp_path / "sft"), "a fingerprint")
    assert state.is_completed()
    assert (labelled, seen, sign.exists()) == ([sign], [True], False)
