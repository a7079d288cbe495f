import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from finished_without_training import finish
from tiny_experiment import write_tiny_experiment
from typer.testing import CliRunner

from titanflow import __version__
from titanflow.cli.main import app
from titanflow.planning import launch_checks

runner = CliRunner()


@pytest.fixture
def configs(tmp_path: Path) -> str:
    return str(write_tiny_experiment(tmp_path / "tiny"))


def test_config_as_json_gives_value_and_origin(configs: str) -> None:
    command = ["config", "tiny", "--configs", configs, "--module", "pretrain", "--json"]
    done = runner.invoke(app, [*command, "--set", "pretrain.training.steps=7"])
    assert done.exit_code == 0
    values = json.loads(done.stdout)
    assert values["training.steps"] == {"value": 7, "origin": "--set pretrain.training.steps=7"}
    assert values["model.dim"]["value"] == 32
    assert values["model.dim"]["origin"].endswith("tiny.yaml:1")
    assert values["optimizer.beta1"] == {"value": 0.9, "origin": "torchtitan 0.2.2"}


def test_config_of_all_modules_has_the_module_in_front(configs: str) -> None:
    done = runner.invoke(app, ["config", "tiny", "--configs", configs, "--json"])
    values = json.loads(done.stdout)
    assert values["sft.model.name"] == {"value": "llama3", "origin": "inherited from pretrain"}
    assert values["publish.target"]["value"] == "folder"


def test_config_shows_origins_when_asked(configs: str) -> None:
    command = ["config", "tiny", "--configs", configs, "--module", "publish"]
    assert "default" not in runner.invoke(app, command).stdout
    assert "default" in runner.invoke(app, [*command, "--origin"]).stdout


def test_plan_as_json_has_every_stage_in_order(configs: str) -> None:
    done = runner.invoke(app, ["plan", "tiny", "--configs", configs, "--json"])
    stages = json.loads(done.stdout)["stages"]
    assert [stage["stage"] for stage in stages] == ["prepare", "pretrain", "sft", "evaluate", "publish"]
    assert {stage["state"] for stage in stages} == {"RUN"}
    assert "titan.train.train" in stages[1]["command"]
    assert not (Path(configs).parent / "runs").exists()


def test_a_stale_run_is_refused_shown_and_kept(configs: str) -> None:
    finish(Path(configs))
    changed = ["tiny", "--configs", configs, "--set", "sft.optimizer.lr=0.5"]
    refused = runner.invoke(app, ["run", *changed])
    assert refused.exit_code == 2
    assert "sft.optimizer.lr: 0.01 → 0.5 (--set sft.optimizer.lr=0.5)" in refused.stderr
    assert "--on-stale rerun" in refused.stderr
    shown = runner.invoke(app, ["plan", *changed]).stdout
    assert "sft.optimizer.lr  0.01 → 0.5  (--set sft.optimizer.lr=0.5)" in shown
    sft = json.loads(runner.invoke(app, ["plan", *changed, "--json"]).stdout)["stages"][2]
    change = {"key": "sft.optimizer.lr", "old": 0.01, "new": 0.5, "origin": "--set sft.optimizer.lr=0.5"}
    assert (sft["stage"], sft["state"], sft["changes"]) == ("sft", "STALE", [change])
    assert sft["environment"]["TITANFLOW_STAGE_FOLDER"] == sft["folder"]
    kept = json.loads(runner.invoke(app, ["plan", *changed, "--json", "--on-stale", "keep"]).stdout)["stages"]
    assert [(stage["state"], stage["kept"]) for stage in kept[2:4]] == [("CACHED", True), ("CACHED", False)]


def test_the_commands_of_every_stage_are_shown(configs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_checks, "torchrun_problems", lambda stages: [])
    done = runner.invoke(app, ["plan", "tiny", "--configs", configs, "--commands"])
    assert done.exit_code == 0
    shown = done.stdout.splitlines()
    assert [line for line in shown if line.endswith("(RUN):")] == [
        f"{stage} (RUN):" for stage in ("prepare", "pretrain", "sft", "evaluate", "publish")
    ]
    assert sum("-m titan.train.train" in line and "torch.distributed.run" in line for line in shown) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["config", "tiny", "--module", "pretran"], "did you mean pretrain?"),
        (["plan", "tinny"], "did you mean tiny?"),
        (["plan", "tiny", "--set", "nokey"], "dotted.key=value"),
        (["plan", "tiny", "--run", "a/b"], "--run"),
    ],
)
def test_bad_input_ends_with_2_and_says_so_on_stderr(configs: str, arguments: list[str], expected: str) -> None:
    done = runner.invoke(app, [*arguments, "--configs", configs])
    assert done.exit_code == 2
    assert expected in done.stderr
    assert done.stdout == ""


def test_patches_say_what_why_and_which_versions() -> None:
    done = runner.invoke(app, ["patches", "--json"])
    listed = json.loads(done.stdout)
    assert {"cpu_device", "train_spec"} <= {patch["name"] for patch in listed}
    assert all(patch["what"] and patch["why"] and patch["versions"] for patch in listed)
    assert "cpu_device" in runner.invoke(app, ["patches"]).stdout


def test_a_report_of_a_run_that_is_not_there(configs: str) -> None:
    done = runner.invoke(app, ["report", "tiny", "--configs", configs])
    assert done.exit_code == 2
    assert "run the experiment first" in done.stderr


def test_a_report_is_written_into_the_run_s_folder(configs: str) -> None:
    folder = Path(configs).parent / "runs" / "tiny" / "main"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text('{"experiment": "tiny", "run": "main", "stages": []}')
    done = runner.invoke(app, ["report", "tiny", "--configs", configs])
    assert done.exit_code == 0
    assert done.stdout.strip() == str(folder / "report.html")
    assert "tiny" in (folder / "report.html").read_text()


def test_no_help_holds_brackets_which_typer_takes_for_rich_s_markup() -> None:
    commands = typer.main.get_command(app).commands.values()
    texts = [text for one in commands for text in [one.help, *(getattr(param, "help", "") for param in one.params)]]
    assert [text for text in texts if "[" in (text or "")] == []


def test_the_version_and_short_help() -> None:
    assert runner.invoke(app, ["--version"]).stdout == f"titanflow {__version__}\n"
    for command in ([], ["plan"]):
        assert runner.invoke(app, [*command, "-h"]).stdout == runner.invoke(app, [*command, "--help"]).stdout


def test_it_runs_as_a_module_and_completes_names_of_commands() -> None:
    command = [sys.executable, "-m", "titanflow"]
    assert subprocess.check_output([*command, "--version"], text=True) == f"titanflow {__version__}\n"
    asked = {"_TITANFLOW_COMPLETE": "complete_bash", "COMP_WORDS": "titanflow prove", "COMP_CWORD": "1"}
    names = subprocess.check_output(
        [Path(sys.executable).with_name("titanflow")], env={**os.environ, **asked}, text=True
    ).split()
    assert names == ["prove-resume", "prove-losses"]


@pytest.mark.parametrize("name", ["elsewhere", "[a] 'b' {c: d}", "1e3", "x=y"])
def test_a_workspace_is_a_folder_of_any_name(configs: str, tmp_path: Path, name: str) -> None:
    command = ["tiny", "--configs", configs, "--workspace", str(tmp_path / name)]
    assert json.loads(runner.invoke(app, ["plan", *command, "--json"]).stdout)["folder"] == str(
        tmp_path / name / "tiny" / "main"
    )
    assert f"no nights in {tmp_path / name / 'tiny'}" in " ".join(
        runner.invoke(app, ["nights", *command]).stdout.split()
    )
