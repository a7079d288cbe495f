import importlib.metadata
import importlib.util
import inspect
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from tiny_exports import POSITIONS, write_tiny_export

import titan.evaluate.lm.backends
from titan.evaluate.lm.backends import Loading, choose_device, load_lm
from titan.evaluate.ranks import Ranks
from titanflow.common.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_export(tmp_path_factory.mktemp("model"))


def test_a_text_of_our_models_begins_after_the_end_of_text(export: Path) -> None:
    lm = load_lm(Loading(export, {}), Ranks())

    assert lm.prefix_token_id == lm.tokenizer.eos_token_id == 0
    assert lm.tok_encode("a") == lm.tokenizer.encode("a", add_special_tokens=False)
    assert (lm.max_length, lm.model.dtype, lm.device.type) == (POSITIONS, torch.float32, "cpu")


def test_a_foreign_models_text_begins_with_what_its_tokenizer_says(export: Path, tmp_path: Path) -> None:
    foreign = shutil.copytree(export, tmp_path / "foreign")
    config = json.loads((foreign / "tokenizer_config.json").read_text())
    (foreign / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<|im_start|>"}))

    assert load_lm(Loading(foreign, {}, trained_here=False), Ranks()).prefix_token_id == 1


def test_a_limit_of_the_folders_own_is_told(export: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    foreign = shutil.copytree(export, tmp_path / "foreign")
    config = json.loads((foreign / "generation_config.json").read_text())
    (foreign / "generation_config.json").write_text(json.dumps(config | {"max_new_tokens": 5}))

    load_lm(Loading(foreign, {}, trained_here=False), Ranks())

    assert "sets max_new_tokens to 5, which goes before each task's max_gen_toks" in caplog.text


def test_weights_are_evaluated_in_the_type_that_is_asked_for(export: Path) -> None:
    assert load_lm(Loading(export, {}, dtype="bfloat16"), Ranks()).model.dtype == torch.bfloat16


def test_vllm_is_refused_where_it_is_not_installed(export: Path) -> None:
    with pytest.raises(ConfigError, match="backend: vLLM isn't installed"):
        load_lm(Loading(export, {}, backend="vllm"), Ranks())


def test_vllm_is_lm_evals_own_with_the_conventions_of_training(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM itself isn't here: what its backend is called with is held against the backend's own arguments."""
    for name in ("vllm", "vllm.lora", "vllm.lora.request", "vllm.renderers", "vllm.renderers.hf", "vllm.tokenizers"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    known = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.18.0" if name == "vllm" else known(name))
    spec = importlib.util.find_spec("lm_eval.models.vllm_causallms")
    assert spec is not None
    assert spec.loader is not None
    vllm_causallms = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, vllm_causallms)
    spec.loader.exec_module(vllm_causallms)
    arguments = inspect.signature(vllm_causallms.VLLM.__init__)
    given: list[dict[str, Any]] = []

    def create(**settings: Any) -> SimpleNamespace:
        given.append(arguments.bind(None, **settings).arguments)
        return SimpleNamespace()

    monkeypatch.setattr(vllm_causallms, "VLLM", create)
    monkeypatch.setattr(titan.evaluate.lm.backends, "find_spec", lambda name: name)

    ours = load_lm(Loading(export, {}, backend="vllm"), Ranks())
    load_lm(Loading(export, {}, backend="vllm", trained_here=False), Ranks())

    assert ours.name == str(export)
    assert [(one["prefix_token_id"], one["add_bos_token"]) for one in given] == [(0, False), (None, None)]
    assert given[0]["trust_remote_code"] is False
    with pytest.raises(ConfigError, match=r"launcher\.nproc_per_node: vLLM under 2 processes"):
        load_lm(Loading(export, {}, backend="vllm"), Ranks(size=2))


@pytest.mark.parametrize(
    ("wanted", "local_rank", "gpus", "device"),
    [(None, 1, 0, "cpu"), (None, 1, 2, "cuda:1"), ("cuda", 0, 2, "cuda:0"), ("cpu", 1, 2, "cpu")],
)
def test_each_process_has_a_device_of_its_own(
    wanted: str | None, local_rank: int, gpus: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    # Of a second machine: the number on the machine counts.
    assert choose_device(wanted, Ranks(rank=2 + local_rank, size=4, local_rank=local_rank, local_size=2)) == device


def test_one_gpu_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    ranks = Ranks(size=2, local_size=2)

    with pytest.raises(ConfigError, match=r"launcher\.nproc_per_node: 2 processes and 1 GPUs"):
        choose_device("cuda", ranks)
    with pytest.raises(ConfigError, match=r"device: cuda:1 for 2 processes"):
        choose_device("cuda:1", ranks)
    assert choose_device("cuda:1", Ranks()) == "cuda:1"
