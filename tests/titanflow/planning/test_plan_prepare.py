"""What a plan says of the prepare step: who does it, and from what it goes on."""

from pathlib import Path

import pytest
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.planning.begin import begin_stage
from titanflow.planning.cluster import slurm_script
from titanflow.planning.cluster.resources import DryRun
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.checkpoints import PARTS_FOLDER


def prepare_plan(configs: Path, *settings: str) -> StagePlan:
    found = make_plan("tiny", configs, overrides=settings, runs_here=False).stage("prepare")
    assert found is not None
    return found


def test_a_preparation_goes_on_from_the_parts_of_the_same_inputs(tmp_path: Path) -> None:
    configs = write_tiny_experiment(tmp_path)
    plan = prepare_plan(configs)
    assert (plan.state, plan.reason) == ("RUN", "4 of 4 to prepare")
    begin_stage(plan)
    part = plan.run.folder / PARTS_FOLDER / "work" / "0.arrow"
    part.parent.mkdir(parents=True)
    part.touch()
    (plan.run.folder / "scratch-of-a-killed-process").mkdir()
    again = prepare_plan(configs)
    assert (again.state, again.reason) == ("RESUME", "4 of 4 to prepare, from 1 finished part")
    begin_stage(again)
    assert part.exists()
    assert not list(plan.run.folder.glob("scratch-*"))

    (tmp_path / "text.txt").write_text("Other text. " * 400)
    other = prepare_plan(configs)
    assert other.state == "RUN"
    begin_stage(other)
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_pretraining_for_which_nobody_names_rows_is_refused(tmp_path: Path) -> None:
    configs = write_tiny_experiment(tmp_path)
    nothing, alone = ("pretrain.data=null", "validation_data=null"), ("modules.evaluate=null", "modules.publish=null")
    settings = [nothing[0], f"pretrain.{nothing[1]}", "pretrain.validation.enable=false", "modules.sft=null", *alone]
    with pytest.raises(ConfigError, match=r"tiny\.yaml:\d+: pretrain\.data: pretraining has nothing to train on"):
        make_plan("tiny", configs, overrides=settings)
    with pytest.raises(ConfigError, match="no tokenizer is named"):
        make_plan("tiny", configs, overrides=[*settings, "pretrain.training.dataset=c4"])
    assert make_plan("tiny", configs, overrides=[*settings, "pretrain.training.mock_data=true"])


def test_a_plan_says_who_prepares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_script, "dry_run", lambda command, resources: DryRun())
    configs = write_tiny_experiment(tmp_path)
    settings = ("prepare.launcher.kind=slurm", "prepare.launcher.nnodes=3")
    plan = prepare_plan(configs, *settings)
    assert plan.reason.endswith("; as a job of slurm, 3 nodes")
    assert prepare_plan(configs, *settings, "prepare.launcher.slurm.partition=cpu").reason.endswith(
        "; as a job of slurm, 3 nodes: partition cpu"
    )
    assert plan.is_job
    assert plan.run.origins["launcher.nnodes"] == "--set prepare.launcher.nnodes=3"
    assert prepare_plan(configs, *settings, "prepare.launcher.nproc_per_node=8").reason.endswith(
        "3 nodes of 8 processes"
    )
    # The experiment's own launcher is for stages that may need a GPU.
    assert not prepare_plan(configs, "launcher.kind=slurm", "launcher.nnodes=2").is_job
