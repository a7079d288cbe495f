"""Whether the command of each stage would start."""

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.config.keys.launcher import Launcher
from titanflow.planning.launch import MODULES
from titanflow.planning.launch_checks import is_importable, launch_problems, torchrun_problems
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs import torchrun
from titanflow.runs.contract import StageRun


def stage(name: str = "pretrain", **launcher: Any) -> StageRun:
    config = {"launcher": asdict(Launcher(**launcher))}
    return StageRun(stage=name, experiment="e", run="r", folder=Path("/runs/e/r"), config=config)  # type: ignore[arg-type]


def test_every_stage_s_module_is_found_by_its_file() -> None:
    assert all(is_importable(module) for module in MODULES.values())
    assert is_importable("torch.distributed.run")
    assert not is_importable("titan.trane")
    assert not is_importable("no_such_package.train")


def test_a_package_that_is_missing_is_refused_in_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs, there = write_tiny_experiment(tmp_path), importlib.util.find_spec

    def find_spec(name: str) -> Any:
        return None if name == "lm_eval" else there(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ConfigError, match="evaluate's command: there is no package 'lm_eval'"):
        make_plan("tiny", configs, runs_here=False)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "pretrain.metrics.enable_mlflow",
            r"pretrain\.metrics\.enable_mlflow: found true, and MLflow's",
        ),
        ("evaluate.trackio", r"evaluate\.trackio: found true, and Trackio's package 'trackio'"),
        ("sft.metrics.enable_wandb", r"sft\.metrics\.enable_wandb: found true, and W&B's package 'wandb'"),
    ],
)
def test_a_tracker_whose_package_is_missing_is_refused_in_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, says: str
) -> None:
    configs, there = write_tiny_experiment(tmp_path), importlib.util.find_spec
    gone = ("mlflow", "trackio", "wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else there(name))
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ConfigError, match=says):
        make_plan("tiny", configs, overrides=[f"{setting}=true"], runs_here=False)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert make_plan("tiny", configs, overrides=["sft.metrics.enable_wandb=true"], runs_here=False)


def test_a_machine_beyond_the_last_is_refused() -> None:
    (problem,) = launch_problems(stage(nnodes=2, node_rank=2, rdzv_endpoint="head:29500"))
    assert str(problem) == "pretrain.launcher.node_rank: found 2\n    expected: 0 to 1"
    assert launch_problems(stage(nnodes=2, node_rank=1, rdzv_endpoint="head:29500")) == []


def test_machines_without_a_place_to_meet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"launcher\.nnodes: found 2, and launcher\.kind is local"):
        make_plan("tiny", write_tiny_experiment(tmp_path), overrides=["pretrain.launcher.nnodes=2"])


def test_torchrun_s_own_parser_takes_the_commands_and_says_which_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torchrun.arguments

    def arguments(config: dict[str, Any]) -> list[str]:
        processes = config["launcher"]["nproc_per_node"]
        return [*right(config), *(["--no-such-argument=1"] if processes == 3 else [])]

    monkeypatch.setattr(torchrun, "arguments", arguments)
    runs = [
        stage("pretrain", nproc_per_node=2),
        stage("sft", nnodes=2, node_rank=1, rdzv_endpoint="head:29500"),
        stage("evaluate", nproc_per_node=3),
        stage("publish"),
    ]
    (problem,) = torchrun_problems(StagePlan(run.stage, "RUN", "new", run) for run in runs)
    assert str(problem).startswith("evaluate's command: torchrun refuses --nproc_per_node=3")
    assert "--no-such-argument=1" in str(problem)
