"""``titanflow.load``: which folder it takes, and that its model is the one that ``titanflow chat`` talks with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from reported_run import publication, write_json, write_run, write_training
from tiny_exports import write_byte_tokenizer
from transformers import AutoModelForCausalLM
from wrong_exports import edit_config, export_tiny

import titanflow
from titan.inference.conversation import Conversation
from titanflow.runs.results import PublishResult, write_result

pytestmark = pytest.mark.slow
QUESTION = "Is it a class?"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models of noise; that of a pretraining is smaller."""
    folder = tmp_path_factory.mktemp("exports")
    tokenizer = write_byte_tokenizer(folder / "tokenizer")
    sizes = {"pretrain": {"n_layers": 1}, "sft": {"n_layers": 2}}
    return {name: export_tiny(folder / name, "llama3", size, tokenizer).folder for name, size in sizes.items()}


@pytest.fixture
def folder(tmp_path: Path, exports: dict[str, Path]) -> Path:
    """A finished run with both exports, and the second one published."""
    folder = write_run(tmp_path / "runs" / "tiny" / "main")
    for stage, export in exports.items():
        shutil.copytree(export, folder / stage / "export")
    shutil.copytree(exports["sft"], folder / "publish" / "model")
    write_result(folder / "publish", publication(location=str(folder / "publish" / "model")))
    return folder


def place(folder: Path, stage: str | None = None) -> Path:
    """The folder that the model came from."""
    return Path(titanflow.load(folder, stage)[0].name_or_path)


def test_it_is_the_model_that_chat_talks_with(folder: Path) -> None:
    model, tokenizer = titanflow.load(folder)
    assert (model.dtype, model.device.type, model.training) == (torch.float32, "cpu", False)
    talking = Conversation("it", folder / "publish" / "model")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        assert torch.equal(model(**prompt).logits, talking.model(**prompt).logits)
    generated = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    talking.answer(QUESTION, 8, 0.0, lambda piece: None)
    assert tokenizer.decode(generated, skip_special_tokens=True) == talking.turns[-1]["content"]


def test_the_published_folder_goes_before_the_newest_export(folder: Path) -> None:
    assert place(folder) == folder / "publish" / "model"
    assert place(folder, "sft") == folder / "sft" / "export"
    assert titanflow.load(str(folder), "pretrain")[0].config.num_hidden_layers == 1
    write_result(folder / "publish", publication(status="held back", location="/nowhere"))
    assert place(folder) == folder / "sft" / "export"
    write_result(folder / "publish", publication(target="hub", location="owner/name"))
    assert place(folder) == folder / "sft" / "export"


@pytest.mark.parametrize(
    "change",
    [
        {"parents": {"sft": "another-digest"}},
        {"outputs": {"publish/model/config.json": {"bytes": 3, "sha256": "another"}}},
        {"finished": ""},
    ],
)
def test_an_older_or_another_model_in_the_published_folder_is_not_the_run_s(
    folder: Path, change: dict[str, object]
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["stages"]["publish"] |= change
    write_json(folder / "manifest.json", manifest)
    assert place(folder) == folder / "sft" / "export"


def test_before_the_fine_tuning_has_finished_it_is_the_pretrained_model(folder: Path) -> None:
    (folder / "sft" / "result.json").unlink()
    (folder / "publish" / "result.json").unlink()
    assert place(folder) == folder / "pretrain" / "export"
    with pytest.raises(titanflow.ConfigError, match="sft is unfinished"):
        titanflow.load(folder, "sft")


def test_a_finished_training_without_an_export_has_no_substitute(folder: Path) -> None:
    shutil.rmtree(folder / "sft" / "export")
    (folder / "publish" / "result.json").unlink()
    with pytest.raises(titanflow.ConfigError) as caught:
        titanflow.load(folder)
    said = str(caught.value)
    assert "found no exported model: publish is unfinished, sft is finished at step 8" in said
    assert "expected: an export" in said
    assert "titanflow export STAGE_FOLDER OUT" in said


def test_a_stage_that_it_lacks_is_refused(folder: Path) -> None:
    with pytest.raises(titanflow.ConfigError) as caught:
        titanflow.load(folder, "stf")
    assert "found 'stf'\n    expected: one of pretrain, sft, publish\n    did you mean sft?" in str(caught.value)


def test_another_type_may_be_asked_for(folder: Path) -> None:
    assert titanflow.load(folder, dtype="bfloat16")[0].dtype == torch.bfloat16
    assert titanflow.load(folder, dtype=torch.float64)[0].dtype == torch.float64


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"dtype": "fp16"}, "dtype: found 'fp16'\n    expected: auto, float32"),
        ({"dtype": "int8"}, "dtype: found 'int8'"),
        ({"dtype": "float8_e4m3fn"}, "dtype: found 'float8_e4m3fn'"),
        ({"dtype": 16}, "dtype: found 16"),
        ({"device": "gpu"}, "device: found 'gpu': Expected one of cpu, cuda"),
        ({"device": "cuda:99"}, "device: found 'cuda:99'"),
        ({"device": [0]}, "device: found [0]"),
    ],
)
def test_a_type_or_device_that_is_not_here_is_refused_before_the_model_is_read(
    folder: Path, asked: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titan.weights.hf_folder.load_folder", lambda *_: pytest.fail("it was read"))
    with pytest.raises(titanflow.ConfigError) as caught:
        titanflow.load(folder, **asked)
    assert said in str(caught.value)


def test_foreign_code_runs_only_if_it_is_asked_for(folder: Path) -> None:
    write_training(folder, "sft")
    export, mark = folder / "sft" / "export", folder / "has-run"
    edit_config(export, auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    (export / "own.py").write_text(
        f"""
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({str(mark)!r}).touch()

class Config(LlamaConfig):
    pass

class Model(LlamaForCausalLM):
    config_class = Config
"""
    )
    with pytest.raises(titanflow.ConfigError, match=r"own\.py"):
        titanflow.load(folder, "sft")
    assert not mark.exists()
    model, _ = titanflow.load(folder, "sft", remote_code=True)
    assert mark.exists()
    expected = AutoModelForCausalLM.from_pretrained(folder / "publish" / "model")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), expected.parameters(), strict=True))


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    edit_config(folder / "publish" / "model", num_hidden_layers=3)
    with pytest.raises(titanflow.DataError, match=r"weights don't fit: missing model\.layers\.2\."):
        titanflow.load(folder)


def test_a_publication_says_where_its_model_went(folder: Path) -> None:
    write_result(folder / "publish", PublishResult(target="hub", location="owner/name"))
    with pytest.raises(titanflow.ConfigError, match=r"publish is published \(owner/name\)"):
        titanflow.load(folder, "publish")
