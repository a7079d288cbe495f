"""GGUF files that couldn't be made or proved are refused in the plan."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import leave_out_fine_tuning, write_tiny_experiment
from tiny_plans import refusal

from titanflow.data.tokenizer.tokenizer import train_tokenizer
from titanflow.planning.plan import make_plan

ASKED = "publish.gguf=[f16, q8_0]"


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the packages were there: a plan only looks for them."""
    there = importlib.util.find_spec

    def find_spec(name: str) -> Any:
        return there("json") if name in ("gguf", "xllamacpp") else there(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def of_another_family(configs: Path, model: str) -> None:
    (configs / "models" / "tiny.yaml").write_text(f"model: {{{model}, vocab_size: 320}}\n", encoding="utf-8")


def given_tokenizer(folder: Path, words: str | None = None) -> Path:
    """A tokenizer's folder; with ``words``, one that splits text by another pattern."""
    train_tokenizer(["some words, and more words"], 280, folder)
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    if words is not None:
        pieces = [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ]
        described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": pieces}
    path.write_text(json.dumps(described), encoding="utf-8")
    return folder


@pytest.mark.usefixtures("installed")
def test_a_tokenizer_that_is_trained_here_fits(configs: Path) -> None:
    for model in ("", "name: qwen2, flavor: debugmodel"):
        if model:
            of_another_family(configs, model)
        plan = make_plan("tiny", configs, overrides=[ASKED])
        assert plan.stages[-1].run.config["gguf"] == ["f16", "q8_0"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("is_fine_tuned", [True, False])
def test_a_tokenizer_with_another_pattern_is_refused(configs: Path, tmp_path: Path, is_fine_tuned: bool) -> None:
    if not is_fine_tuned:
        leave_out_fine_tuning(configs)
    folder = given_tokenizer(tmp_path / "other", r"\w+|\W")
    message = refusal(configs, ASKED, f"pretrain.tokenizer.path={folder}")
    assert message.startswith("--set publish.gguf")
    assert f"{folder}/tokenizer.json: llama.cpp has no name for its way to split text into words: Split" in message
    assert "expected: a byte-level BPE that splits text into words as gpt-2, smollm, qwen2, llama-bpe does" in message
    assert not (tmp_path / "runs").exists()
    plan = make_plan("tiny", configs, overrides=[f"pretrain.tokenizer.path={folder}"])
    assert plan.stages[-1].run.config["gguf"] == []


@pytest.mark.usefixtures("installed")
def test_a_given_tokenizer_that_fits(configs: Path, tmp_path: Path) -> None:
    folder = given_tokenizer(tmp_path / "own")
    assert make_plan("tiny", configs, overrides=[ASKED, f"pretrain.tokenizer.path={folder}"]).stages


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("name: mod, flavor: debugmodel", "no GGUF file was proved of the model family mod"),
        ("name: qwen3, flavor: debugmodel_moe", "no GGUF file was proved of the model family qwen3 with experts"),
    ],
)
def test_a_family_that_llama_cpp_does_not_compute_is_refused(configs: Path, model: str, says: str) -> None:
    of_another_family(configs, model)
    message = refusal(configs, ASKED)
    assert says in message
    assert "a model of llama3, qwen2, qwen3" in message


@pytest.mark.usefixtures("installed")
def test_formats_that_are_not_written(configs: Path) -> None:
    assert "publish.gguf" in refusal(configs, "publish.gguf=[q4_k_m]")
    assert "found f16, f16" in refusal(configs, "publish.gguf=[f16, f16]")


@pytest.mark.parametrize("package", ["gguf", "xllamacpp"])
def test_without_llama_cpp_there_is_no_file(configs: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec

    def find_spec(name: str) -> Any:
        return None if name == package else there("json") if name in ("gguf", "xllamacpp") else there(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    message = refusal(configs, ASKED)
    assert f"publish's command: there is no package {package!r}" in message
    assert 'pip install "titanflow[gguf]"' in message
    assert make_plan("tiny", configs).stages
