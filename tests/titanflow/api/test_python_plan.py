"""``titanflow.plan``, beside what the command line makes of the same experiment."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_experiment import write_tiny_experiment
from tiny_plans import edit
from typer.testing import CliRunner

import titanflow
from titanflow.cli.main import app
from titanflow.files.json_source import GIVEN
from titanflow.files.yaml_source import Loader

SAME = ("stage", "state", "reason", "fingerprint", "folder", "command", "forecast")


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


@pytest.fixture
def written(configs: Path) -> dict[str, Any]:
    """What the tiny experiment's file says."""
    found: dict[str, Any] = yaml.load((configs / "experiments" / "tiny.yaml").read_text(), Loader)
    return found


def by_command(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["plan", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_it_is_the_plan_of_the_command_line(configs: Path) -> None:
    planned = titanflow.plan("tiny", configs=configs, run="second", overrides={"pretrain.training.steps": 7})
    options = ("--configs", str(configs), "--run", "second", "--set", "pretrain.training.steps=7")
    assert planned.as_json() == json.loads(by_command("tiny", *options, "--json"))
    assert str(planned).split() == by_command("tiny", *options).split()
    assert [(stage.stage, stage.state) for stage in planned.stages][:2] == [("prepare", "RUN"), ("pretrain", "RUN")]
    assert (planned.experiment, planned.run, planned.is_cached) == ("tiny", "second", False)
    assert planned.folder == configs.parent / "runs" / "tiny" / "second"
    assert not planned.folder.parent.exists()


def test_an_experiment_may_be_a_mapping_a_file_or_json(configs: Path, written: dict[str, Any]) -> None:
    by_name = titanflow.plan("tiny", configs=str(configs)).as_json()
    assert titanflow.plan(configs / "experiments" / "tiny.yaml").as_json() == by_name
    by_python = titanflow.plan(written, configs=configs).as_json()
    assert json.loads(by_command(json.dumps(written), "--configs", str(configs), "--json")) == by_python
    # No file is there to be named, in W&B's note and as an origin; all else is the same.
    assert {stage["environment"].pop("WANDB_NOTES") for stage in by_python["stages"]} == {GIVEN}
    for own, other in zip(by_python["stages"], by_name["stages"], strict=True):
        assert {key: own[key] for key in SAME} == {key: other[key] for key in SAME}


def test_a_mapping_names_files_from_the_current_folder_on(
    tmp_path: Path, configs: Path, written: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text((configs / "models" / "tiny.yaml").read_text().replace("dim: 32", "dim: 64"))
    written["modules"]["pretrain"] |= {"model": "mine.yaml", "data": {"kind": "text", "path": Path("text.txt")}}
    planned = titanflow.plan(written, workspace=Path("elsewhere"))
    assert planned.folder == tmp_path / "elsewhere" / "tiny" / "main"
    assert planned.stages[1].run.model_overrides["dim"] == 64


def test_it_shows_itself(configs: Path) -> None:
    edit(configs / "experiments" / "tiny.yaml", "warmup_steps: 2", "warmup_steps: 20")
    planned = titanflow.plan("tiny", configs=configs)
    assert repr(planned) == str(planned)
    page = planned._repr_html_()
    assert page.startswith("<pre")
    assert "<html" not in page
    text = re.sub(r"<[^>]*>", "", page)
    assert "warning: pretrain.lr_scheduler.warmup_steps" in text
    for line in str(planned).splitlines()[2:5]:
        assert line.rstrip() in text
    assert re.search(r'<span style="color: #[^"]*">RUN', page)


def test_brackets_and_markup_of_a_config_are_text(configs: Path) -> None:
    page = titanflow.plan("tiny", configs=configs, workspace=configs.parent / "<b>[bold]x")._repr_html_()
    assert "&lt;b&gt;[bold]x" in page


def test_a_mistake_names_key_found_and_expected(configs: Path, written: dict[str, Any]) -> None:
    written["modules"]["pretrain"]["overrides"]["training"] |= {"stepz": 3, "seq_len": "long"}
    with pytest.raises(titanflow.ConfigError) as caught:
        titanflow.plan(written, configs=configs, overrides={"sft.optimizer.lr": "1e-2"})
    said = str(caught.value)
    assert f"{GIVEN}: pretrain.training.stepz: unknown key" in said
    assert "did you mean `pretrain.training.steps`?" in said
    assert re.search(r"pretrain\.training\.seq_len: found 'long'.*\n +expected: ", said)
    # A text that looks like a number is a text: Python has numbers.
    assert "sft.optimizer.lr: found '1e-2'" in said
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"experiment": 3}, "experiment: found 3 (int)\n    expected: a name, a file, or a mapping"),
        ({"experiment": ""}, "experiment: found ''"),
        ({"experiment": {"modules": {"sft": {}}}}, "exp_name: isn't set\n    expected: a name"),
        ({"experiment": {"exp_name": "x", "modules": {"sft": {1: 2}}}}, "modules.sft: found the key 1 (int)"),
        ({"overrides": {"pretrain.training.steps": {1, 2}}}, "pretrain.training.steps: found {1, 2} (set)"),
        ({"overrides": {"pretrain.optimizer.lr": float("nan")}}, "pretrain.optimizer.lr: found nan"),
        ({"overrides": {"a=b": 1}}, "overrides: found 'a=b'\n    expected: a dotted key"),
        ({"overrides": {"evaluate.tasks": ["a", object]}}, "evaluate.tasks[1]: found <class 'object'>"),
        ({"overrides": ["pretrain.training.steps=1"]}, "(list)\n    expected: a mapping"),
        ({"overrides": "pretrain.training.steps=1"}, "overrides: found 'pretrain.training.steps=1' (str)"),
        ({"run": 3}, "run: found 3 (int)\n    expected: a name"),
        ({"run": ""}, "run: found ''"),
        ({"workspace": 3}, "workspace: found 3 (int)\n    expected: a folder"),
        ({"workspace": ""}, "workspace: found ''"),
        ({"configs": 3}, "configs: found 3 (int)"),
        ({"on_stale": "again"}, "on_stale"),
        ({"configs": "nowhere"}, "no such folder: nowhere"),
        ({"run": "../up"}, "--run"),
    ],
)
def test_what_no_config_can_hold_is_refused_by_name(configs: Path, given: dict[str, Any], said: str) -> None:
    before = sorted(configs.parent.iterdir())
    with pytest.raises(titanflow.ConfigError) as caught:
        titanflow.plan(**{"experiment": "tiny", "configs": configs, **given})
    assert said in str(caught.value)
    assert sorted(configs.parent.iterdir()) == before


def test_numpy_s_whole_numbers_are_numbers(configs: Path) -> None:
    """A sweep's steps often come from numpy.arange."""
    plan = titanflow.plan("tiny", configs=configs, overrides={"pretrain.training.steps": np.int64(7)})
    (pretrain,) = [stage for stage in plan.stages if stage.stage == "pretrain"]
    assert pretrain.run.config["training"]["steps"] == 7


def test_the_package_names_its_face() -> None:
    assert {"plan", "run", "results", "load", "Plan", "Run", "Results", "ConfigError"} <= {*dir(titanflow)}
    assert all(getattr(titanflow, name).__doc__ for name in titanflow.__all__)
    # A module of such a name would take its place as soon as something imports it.
    modules = {path.stem for path in Path(titanflow.__file__).parent.iterdir()}
    assert modules & {*titanflow.__all__} == set()
    with pytest.raises(AttributeError, match="'titanflow' has no attribute 'plam'"):
        _ = titanflow.plam
