"""Another machine, with another current folder and perhaps another installation, makes the same plan."""

import json
import os
from pathlib import Path

import pytest
from small_plan import TRAINS, small_plan

from flows.parameters.run_request import RunRequest
from titanflow.config.experiment import load_experiment
from titanflow.config.files.tree import SHIPPED
from titanflow.config.overrides import parameter_settings

MINE = "exp_name: mine\nextends: [stdlib.yaml]\n"
FILES = ("pretrain.model", "modules.sft.data", "sft.validation_data", "evaluate.include_path")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evals").mkdir()
    (tmp_path / "tiny.yaml").write_text("model: {name: llama3, flavor: debugmodel}\n")
    (tmp_path / "chats.yaml").write_text("kind: chat\npath: chats.jsonl\n")
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "link.yaml").symlink_to("mine.yaml")
    return tmp_path


def elsewhere(here: Path, request: RunRequest) -> RunRequest:
    plan = small_plan(here, pretrain=TRAINS)
    plan.config = load_experiment(request.experiment, request.configs, parameter_settings(request.settings))
    return request.elsewhere(plan, plan.stages[0])


@pytest.mark.parametrize("given", ["mine", "mine.yaml", "./mine.yaml", "link"])
def test_files_of_ones_own_are_named_by_their_paths(here: Path, given: str) -> None:
    (here / "configs" / "experiments").mkdir(parents=True)
    names = dict(zip(FILES, ("tiny.yaml", "chats", "./chats.yaml", "evals"), strict=True))
    asked = elsewhere(here, RunRequest(given, None, None, {**names, "pretrain.training.steps": 7}))
    assert asked[:3] == (str(here / Path(given).with_suffix(".yaml")), str(here / "configs"), "main")
    found = [here / "tiny.yaml", here / "chats.yaml", here / "chats.yaml", here / "evals"]
    assert [asked.settings[key] for key in FILES] == [str(path) for path in found]
    assert asked.settings["pretrain.training.steps"] == 7
    assert asked.settings["pretrain.launcher.pool"] is None
    assert asked.settings["workspace"] == str(here / "runs")


def test_json_goes_along_with_the_paths_of_the_files_that_it_names(here: Path) -> None:
    modules = {"pretrain": {"model": "tiny.yaml"}, "sft": {"data": "chats.yaml", "validation_data": "chat_files"}}
    modules["evaluate"] = {"overrides": {"include_path": "evals"}}
    given = json.dumps({"exp_name": "mine", "extends": ["stdlib.yaml"], "modules": modules})
    asked = elsewhere(here, RunRequest(given, None, None, {"pretrain.training.steps": 7}))
    assert asked[:3] == (given, None, "main")
    own = {"pretrain.model": "tiny.yaml", "sft.data": "chats.yaml", "evaluate.include_path": "evals"}
    files = {key: path for key, path in asked.settings.items() if str(path).startswith(str(here / ""))}
    assert files == {"workspace": str(here / "runs"), **{key: str(here / name) for key, name in own.items()}}


def test_those_that_come_with_titanflow_by_their_names(here: Path) -> None:
    (here / "mine.yaml").unlink()
    (here / "mine.yaml").symlink_to(SHIPPED / "experiments" / "stdlib.yaml")
    assert elsewhere(here, RunRequest("mine", None, None, {})).experiment == str(here / "mine.yaml")
    by_path = RunRequest(os.path.relpath(SHIPPED / "experiments" / "stdlib.yaml"), None, None, {})
    assert elsewhere(here, by_path).experiment == "stdlib"
    names = dict(zip(FILES, ("mod_10m", "chat_mixture.yaml", "chat_files", "evals"), strict=True))
    (here / "evals").rmdir()
    asked = elsewhere(here, RunRequest("stdlib", None, None, names))
    assert asked[:3] == ("stdlib", None, "main")
    assert {key: asked.settings[key] for key in FILES} == names


def test_a_relative_folder_of_configs_is_found_from_there(here: Path) -> None:
    (here / "tree" / "experiments").mkdir(parents=True)
    (here / "tree" / "experiments" / "ours.yaml").write_text(MINE)
    asked = elsewhere(here, RunRequest("ours", "tree", None, {}))
    assert asked[:2] == (str(here / "tree" / "experiments" / "ours.yaml"), str(here / "tree"))
