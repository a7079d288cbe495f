import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from finished_stage import write_checkpoint

from titanflow.architectures.base import BaseArchitecture
from titanflow.common.errors import ConfigError
from titanflow.config.module import Module
from titanflow.planning.evaluation.models import check_models, check_publishable, models_state


def check(tmp_path: Path, models: Any, *stages: str, backend: str = "hf", remote_code: Any = None) -> None:
    config = {"models": models, "backend": backend, "remote_code": remote_code or {}}
    module = Module("evaluate", "evaluate", "lm_eval", config, dict.fromkeys(("models", "models.a"), "evaluate.yaml:3"))
    others = {name: Module(name, name, "torchtitan", {}, {}) for name in stages}
    if "sft" in others:
        begun = "pretrain" if "pretrain" in others else "elsewhere"
        folder = None if "pretrain" in others else tmp_path / begun
        others["sft"].base = BaseArchitecture(begun, "llama3", "debugmodel", {}, 64, folder=folder)
    experiment: Any = SimpleNamespace(modules={**others, "evaluate": module})
    check_models(module, experiment, tmp_path / "runs")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.json").write_text("{}")
    return tmp_path / "export"


def test_stages_of_the_experiment_and_folders(tmp_path: Path, export: Path) -> None:
    check(tmp_path, ["base", "sft"], "pretrain", "sft")
    check(tmp_path, ["base", "sft"], "sft")
    check(tmp_path, ["pretrain"], "pretrain")
    check(tmp_path, {"a": str(export)})
    check(tmp_path, {"to come": str(tmp_path / "runs" / "e" / "main" / "sft" / "export")})


def test_a_folder_below_home_is_that_folder(tmp_path: Path, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    check(tmp_path, {"a": "~/export"})
    assert models_state({"a": "~/export"}) == models_state({"a": str(export)})
    (export / "modeling.py").write_text("")
    (export / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}')
    with pytest.raises(ConfigError, match="brings code of its own"):
        check(tmp_path, {"a": "~/export"})


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["base", "sft"], ["'base' is no stage of this experiment", "'sft' is no stage", "a mapping from a name"]),
        ({"a": "/nowhere"}, ["evaluate.yaml:3: evaluate.models.a: no config.json in '/nowhere'"]),
        (["pretrain", "pretrain"], ["found 'pretrain' twice"]),
        ([], ["nothing to evaluate"]),
        ({}, ["nothing to evaluate"]),
    ],
)
def test_what_cant_be_evaluated_is_refused(tmp_path: Path, models: Any, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, models)
    for part in expected:
        assert part in str(caught.value)


def test_a_folder_that_brings_code_of_its_own_is_refused(tmp_path: Path, export: Path) -> None:
    (export / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}')
    (export / "modeling.py").write_text("")
    with pytest.raises(
        ConfigError, match=r"evaluate.yaml:3: evaluate.models.a: .* brings code of its own \(modeling.py"
    ):
        check(tmp_path, {"a": str(export)})


def test_a_folder_that_changed_is_another_state(export: Path) -> None:
    before = models_state({"a": str(export)})
    assert models_state({"a": str(export)}) == before
    os.utime(export / "config.json", (0, 0))
    assert models_state({"a": str(export)}) != before
    assert models_state(["base", "sft"]) == {}


def test_the_native_backend_takes_checkpoints(tmp_path: Path, export: Path) -> None:
    step = tmp_path / "stage" / "checkpoint" / "step-8"
    step.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"a: no complete checkpoint in .*/step-8"):
        check(tmp_path, {"a": str(step)}, backend="native")
    with pytest.raises(ConfigError, match=r"expected: checkpoint/step-N, or its stage's folder"):
        check(tmp_path, {"a": str(export)}, backend="native")
    write_checkpoint(step)

    check(tmp_path, {"a": str(step), "b": str(tmp_path / "stage")}, backend="native")
    check(tmp_path, ["sft"], "sft", backend="native")
    check(tmp_path, {"to come": str(tmp_path / "runs" / "e" / "main" / "sft")}, backend="native")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"limit": 40}, r"evaluate.yaml:5: evaluate.limit: only a part of each task is evaluated \(limit 40\)"),
        ({"limit": 0.5}, r"limit 0\.5"),
        ({"backend": "native"}, "evaluate.backend: the checkpoint is scored"),
    ],
)
def test_scores_that_nothing_may_be_published_on_are_refused_before_they_are_computed(
    config: dict[str, Any], says: str
) -> None:
    module = Module("evaluate", "evaluate", "lm_eval", config, {"limit": "evaluate.yaml:5"})
    with pytest.raises(ConfigError, match=says):
        check_publishable(module, Module("publish", "publish", "huggingface_hub", {"dry_run": False}, {}))
    check_publishable(module, Module("publish", "publish", "huggingface_hub", {"dry_run": True}, {}))


def test_whole_scores_of_exports_may_be_published() -> None:
    module = Module("evaluate", "evaluate", "lm_eval", {"limit": None, "backend": "vllm"}, {})
    check_publishable(module, Module("publish", "publish", "huggingface_hub", {}, {}))


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("system_instruction", "Look into {home}/notes.", "the path of your home folder"),
        ("system_instruction", "Say hf_abcdefghijklmnopqrstuvwxyz.", "a token"),
        ("gen_kwargs", {"until": ["{home}/"]}, "the path of your home folder"),
        ("models", {"hf_abcdefghijklmnopqrstuvwxyz": "."}, "a token"),
    ],
)
def test_a_secret_that_the_card_would_show_is_refused_before_anything_is_scored(
    key: str, value: Any, what: str
) -> None:
    value = json.loads(json.dumps(value).replace("{home}", str(Path.home())))
    module = Module("evaluate", "evaluate", "lm_eval", {key: value}, {key: "evaluate.yaml:5"})
    with pytest.raises(ConfigError) as caught:
        check_publishable(module, Module("publish", "publish", "huggingface_hub", {"dry_run": True}, {}))
    assert f"evaluate.yaml:5: evaluate.{key}: the card would publish {what}" in str(caught.value)
    assert str(Path.home()) not in str(caught.value)
    assert "hf_abc" not in str(caught.value)


def test_a_folder_that_is_scored_is_not_on_the_card() -> None:
    config = {"models": {"sft": str(Path.home() / "export")}, "system_instruction": "Be brief."}
    module = Module("evaluate", "evaluate", "lm_eval", config, {})
    check_publishable(module, Module("publish", "publish", "huggingface_hub", {}, {}))


def test_a_repository_whose_code_was_read_is_a_model(tmp_path: Path) -> None:
    check(tmp_path, {"theirs": "owner/name"}, remote_code={"owner/name": "0123456789" * 4})


@pytest.mark.parametrize(
    ("models", "remote_code", "says"),
    [
        ({"a": "owner/name"}, {"owner/name": "main"}, "evaluate.remote_code.owner/name: 'main' is no commit"),
        ({"a": "owner/name"}, {"owner/name": "0123456"}, "'0123456' is no commit"),
        ({"a": "owner/other"}, {"owner/name": "a" * 40}, "no model is owner/name"),
        (["sft"], {"owner/name": "a" * 40}, "no model is owner/name"),
    ],
)
def test_code_that_is_run_is_named_by_its_commit(tmp_path: Path, models: Any, remote_code: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(tmp_path, models, "sft", remote_code=remote_code)
