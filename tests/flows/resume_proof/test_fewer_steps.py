"""A proof of more steps: what the killed run has first, and trainings that more steps don't extend."""

from pathlib import Path

import pytest
from finished_without_training import finish
from tiny_experiment import write_tiny_experiment

from flows.resume_proof.prove_resume import Experiment, check_extends
from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan

CONSTANT = "pretrain.lr_scheduler.decay_ratio=0"
STEPS = [f"pretrain.training.steps={count}" for count in (8, 12)]


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


def test_the_killed_run_has_fewer_steps_first_and_publishes_them_elsewhere(configs: Path, tmp_path: Path) -> None:
    experiment = Experiment("tiny", tmp_path / "proof", configs, settings=[CONSTANT], fewer=["pretrain=8"])
    shorter = experiment.plan("killed", None, experiment.shorter)
    longer, right = (experiment.plan(side, None) for side in ("killed", "uninterrupted"))
    assert shorter.folder == longer.folder != right.folder
    steps = [plan.config.modules["pretrain"].config["training"]["steps"] for plan in (shorter, longer, right)]
    assert steps == [8, 12, 12]
    assert len({plan.config.modules["publish"].config["folder"] for plan in (shorter, longer)}) == 2
    # What comes after the longer training is made again.
    assert [plan.config.spec.on_stale for plan in (longer, right)] == ["rerun", "error"]


def test_a_training_that_more_steps_train_from_scratch_proves_nothing(configs: Path) -> None:
    for schedule in ([CONSTANT], []):
        finish(configs, run=f"r{len(schedule)}", overrides=[*schedule, STEPS[0]], upto="pretrain")
    check_extends(make_plan("tiny", configs, "r1", [CONSTANT, STEPS[1]]), ["pretrain=8"])
    with pytest.raises(ConfigError, match=r"pretrain is STALE: .* a cosine decay"):
        check_extends(make_plan("tiny", configs, "r0", [STEPS[1]]), ["pretrain=8"])
    with pytest.raises(ConfigError, match="no stage pretrian"):
        check_extends(make_plan("tiny", configs, "r1", [CONSTANT, STEPS[1]]), ["pretrian=8"])
