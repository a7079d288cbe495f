import json
from pathlib import Path
from typing import Any

import pytest
from finished_stage import finish_training, write_checkpoint
from tiny_exports import model_at, save_checkpoint, sensitised, tiny_args, write_byte_tokenizer

import titan.evaluate.lm.model
from titan.evaluate.lm.backends import load_lm
from titan.evaluate.lm.model import model_loadings
from titan.evaluate.ranks import Ranks
from titan.export.export import export_model
from titanflow.architectures.base import tokenizer_digest
from titanflow.common.digests import folder_digests
from titanflow.common.errors import ConfigError, DataError
from titanflow.config.keys.after_training import Evaluate
from titanflow.runs.contract import StageRun

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    return StageRun(stage="evaluate", experiment="e", run="r", folder=tmp_path / "evaluate")


def model_folders(run: StageRun, settings: Evaluate) -> dict[str, Path]:
    return {name: loading.folder for name, loading in model_loadings(run, settings).items()}


def complete(folder: Path) -> Path:
    return write_checkpoint(folder)


def test_a_model_that_brings_code_of_its_own_is_not_run(run: StageRun, tmp_path: Path) -> None:
    auto_map = {"AutoModelForCausalLM": "modeling.LlamaForCausalLM"}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": auto_map}))
    (tmp_path / "modeling.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')\n")

    with pytest.raises(ConfigError, match=r"models\.mine: .*brings code of its own \(modeling\.py"):
        model_folders(run, Evaluate(models={"mine": str(tmp_path)}))

    assert not (tmp_path / "was run").exists()


def test_the_code_of_a_repository_is_run_at_the_commit_that_was_read(
    run: StageRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args, commit = tiny_args("llama3"), "c" * 40
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer")
    folder = tmp_path / "models--owner--name" / "snapshots" / commit
    checkpoint = save_checkpoint(sensitised("llama3", args), tmp_path / "step-1")
    export_model(model_at(checkpoint, "llama3", args, tokenizer), folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.TheirsForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    code = "from transformers import LlamaForCausalLM\nclass TheirsForCausalLM(LlamaForCausalLM):\n    theirs = True\n"
    (folder / "modeling.py").write_text(code)
    asked = []
    monkeypatch.setattr(titan.evaluate.lm.model, "download_model", lambda *which: (asked.append(which), folder)[1])

    found = model_loadings(run, Evaluate(models={"theirs": "owner/name"}, remote_code={"owner/name": commit}))["theirs"]

    assert (found.folder, asked) == (folder, [("owner/name", commit)])
    assert load_lm(found, Ranks()).model.theirs
    with pytest.raises(ConfigError, match="brings code of its own"):
        model_folders(run, Evaluate(models={"theirs": str(folder)}, remote_code={"owner/name": "d" * 40}))


def test_folders_below_home_are_those_folders(run: StageRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoint = complete(tmp_path / "sft" / "checkpoint" / "step-8")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.json").write_text("{}")
    assert model_folders(run, Evaluate(models={"a": "~/export"})) == {"a": tmp_path / "export"}
    native = Evaluate(models={"a": "~/sft/checkpoint/step-8"}, backend="native")
    assert model_folders(run, native) == {"a": checkpoint}


def test_the_native_backend_reads_checkpoints(run: StageRun, tmp_path: Path) -> None:
    first, second = (complete(tmp_path / "sft" / "checkpoint" / f"step-{step}") for step in (8, 16))
    (tmp_path / "sft" / "checkpoint" / "step-24").mkdir()
    run.stages = {"sft": tmp_path / "sft"}

    assert model_folders(run, Evaluate(backend="native", models=["sft"])) == {"sft": second}
    given: dict[str, Any] = {"a": str(first), "b": str(tmp_path / "sft")}
    assert model_folders(run, Evaluate(backend="native", models=given)) == {"a": first, "b": second}


def test_the_native_backend_refuses_what_is_no_checkpoint(run: StageRun, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(ConfigError, match=r"is a model of transformers, and backend: native reads checkpoints"):
        model_folders(run, Evaluate(backend="native", models={"a": str(tmp_path)}))
    with pytest.raises(DataError, match="no complete checkpoint"):
        model_folders(run, Evaluate(backend="native", models={"a": str(tmp_path / "sft")}))


def test_models_in_the_hubs_cache_are_told_apart_by_what_their_links_hold(run: StageRun, tmp_path: Path) -> None:
    """Otherwise the scores that were kept for one would be taken for the other's."""
    models = {}
    for name in ("a", "b"):
        blob, snapshot = tmp_path / f"blob-{name}", tmp_path / name
        blob.write_text(json.dumps({"name": name}))
        snapshot.mkdir()
        (snapshot / "config.json").symlink_to(blob)
        models[name] = str(snapshot)

    first, second = (one.digests for one in model_loadings(run, Evaluate(models=models)).values())

    assert set(first) == set(second) == {"config.json"}
    assert first != second


@pytest.mark.parametrize("recorded", [False, True])
def test_an_export_whose_tokenizer_was_swapped_is_refused(run: StageRun, tmp_path: Path, recorded: bool) -> None:
    args = tiny_args("llama3")
    stage = tmp_path / "sft"
    tokenizer = write_byte_tokenizer(stage / "tokenizer")
    checkpoint = save_checkpoint(sensitised("llama3", args), stage / "checkpoint" / "step-1")
    export_model(model_at(checkpoint, "llama3", args, tokenizer), stage / "export")
    StageRun(stage="sft", experiment="e", run="r", folder=stage, tokenizer=tokenizer).write()
    if recorded:
        digests = {"tokenizer_digest": tokenizer_digest(tokenizer), "export_digests": folder_digests(stage / "export")}
        finish_training(stage, stage="sft", tokenizer=tokenizer, **digests)
    run.stages = {"sft": stage}
    assert model_folders(run, Evaluate(models=["sft"])) == {"sft": stage / "export"}

    text = (stage / "export" / "tokenizer.json").read_text()
    (stage / "export" / "tokenizer.json").write_text(text.replace('"Ā"', '"?"'))

    with pytest.raises(DataError, match=r"models\.sft: the tokenizer has the SHA-256"):
        model_folders(run, Evaluate(models=["sft"]))
    # As a folder of its own it has no record to be held to.
    assert model_folders(run, Evaluate(models={"mine": str(stage / "export")})) == {"mine": stage / "export"}
