"""A folder of initial weights that holds no whole checkpoint is refused in the plan, with the newest that is whole."""

from pathlib import Path

import pytest
from finished_stage import finish_training, write_checkpoint
from tiny_experiment import write_tiny_experiment
from tiny_plans import refusal

from titanflow.planning.plan import make_plan
from titanflow.runs.contract import StageRun

KEY = "pretrain.checkpoint.initial_load_path"


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """The folder of a training with a whole checkpoint, that hasn't finished."""
    folder = tmp_path / "before" / "pretrain"
    write_checkpoint(folder / "checkpoint" / "step-4")
    StageRun(stage="pretrain", experiment="before", run="main", folder=folder, config={"training": {}}).write()
    return folder


def test_a_whole_checkpoint_and_a_finished_stage_are_taken(configs: Path, stage: Path) -> None:
    step = stage / "checkpoint" / "step-4"
    make_plan("tiny", configs, overrides=[f"{KEY}={step}"])
    finish_training(stage, step=4)
    planned = make_plan("tiny", configs, overrides=[f"{KEY}={stage}"]).stage("pretrain")
    assert planned is not None
    assert planned.run.config["checkpoint"]["initial_load_path"] == str(stage)


def test_a_stage_that_has_not_finished_is_refused(configs: Path, stage: Path) -> None:
    refused = refusal(configs, f"{KEY}={stage}")
    assert f"--set {KEY}={stage}: {KEY}: {stage} is a stage that hasn't finished" in refused
    assert f"the newest whole one is {stage}/checkpoint/step-4" in refused


@pytest.mark.parametrize("place", ["empty", "checkpoint"])
def test_a_folder_without_one_is_refused(configs: Path, stage: Path, place: str) -> None:
    folder = stage / "checkpoint" if place == "checkpoint" else stage.parent / "empty"
    folder.mkdir(exist_ok=True)
    refused = refusal(configs, f"{KEY}={folder}")
    assert f"{KEY}: {folder} holds no whole checkpoint: it has no .metadata" in refused
    assert ("the newest whole one is" in refused) is (place == "checkpoint")


def test_an_interrupted_save_and_a_short_file_are_refused(configs: Path, stage: Path) -> None:
    whole, step = stage / "checkpoint" / "step-4", write_checkpoint(stage / "checkpoint" / "step-8")
    (step / "__0_0.distcp").write_bytes(b"")
    refused = refusal(configs, f"{KEY}={step}")
    assert "__0_0.distcp has 0 of" in refused
    (step / ".metadata").unlink()
    finish_training(stage, step=8)
    refused = refusal(configs, f"{KEY}={stage}")
    assert f"{step} holds no whole checkpoint: it has no .metadata" in refused
    assert f"the newest whole one is {whole}" in refused
