import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_exports import POSITIONS, save_checkpoint, sensitised, tiny_args, write_byte_tokenizer

from titan.eval_backends import Loading, choose_device, load_lm
from titan.eval_ranks import Ranks
from titan.export import export_dcp
from titanflow.errors import ConfigError


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    args = tiny_args("llama3")
    checkpoint = save_checkpoint(sensitised("llama3", args), folder / "step-1")
    tokenizer = write_byte_tokenizer(folder / "tokenizer")
    return export_dcp(checkpoint, "llama3", args, tokenizer, folder / "out", POSITIONS).folder


def test_a_text_of_our_models_begins_after_the_end_of_text(export: Path) -> None:
    lm = load_lm(Loading(export), Ranks())

    assert lm.prefix_token_id == lm.tokenizer.eos_token_id == 0
    assert lm.tok_encode("a") == lm.tokenizer.encode("a", add_special_tokens=False)
    assert (lm.max_length, lm.model.dtype, lm.device.type) == (POSITIONS, torch.float32, "cpu")


def test_a_foreign_models_text_begins_with_what_its_tokenizer_says(export: Path, tmp_path: Path) -> None:
    foreign = shutil.copytree(export, tmp_path / "foreign")
    config = json.loads((foreign / "tokenizer_config.json").read_text())
    (foreign / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<|im_start|>"}))

    assert load_lm(Loading(foreign, trained_here=False), Ranks()).prefix_token_id == 1


def test_a_limit_of_the_folders_own_is_told(export: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    foreign = shutil.copytree(export, tmp_path / "foreign")
    config = json.loads((foreign / "generation_config.json").read_text())
    (foreign / "generation_config.json").write_text(json.dumps(config | {"max_new_tokens": 5}))

    load_lm(Loading(foreign, trained_here=False), Ranks())

    assert "sets max_new_tokens to 5, which goes before each task's max_gen_toks" in caplog.text


def test_weights_are_evaluated_in_the_type_that_is_asked_for(export: Path) -> None:
    assert load_lm(Loading(export, dtype="bfloat16"), Ranks()).model.dtype == torch.bfloat16


def test_vllm_is_refused_where_it_is_not_installed(export: Path) -> None:
    with pytest.raises(ConfigError, match="backend: vLLM isn't installed"):
        load_lm(Loading(export, backend="vllm"), Ranks())


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
