"""Fifty steps of each dense family have the losses of transformers' model, trained by itself on the same batches."""

import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_stage import finish_training
from tiny_hugging_face import LLAMA3_ROPE, write_hugging_face
from tiny_stages import VOCAB, Workbench

from titan.train.prove_losses import TOLERANCE, Losses, lines, main, prove_losses
from titanflow.architectures.huggingface import hugging_face
from titanflow.common.errors import ConfigError, DataError
from titanflow.data.mixture import open_rows
from titanflow.data.prepared import PreparedRows, Row
from titanflow.runs.contract import PreparedData, StageRun

pytestmark = pytest.mark.slow

STEPS = 50
SETTINGS: dict[str, Any] = {
    "training": {"steps": STEPS, "local_batch_size": 4},
    "optimizer": {"lr": 1e-3},
    "lr_scheduler": {"warmup_steps": 5, "total_steps": None},
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3": ("LlamaForCausalLM", {"rope_parameters": LLAMA3_ROPE}),
    "qwen3": ("Qwen3ForCausalLM", {"tie_word_embeddings": False}),
    "qwen3, tied": ("Qwen3ForCausalLM", {"tie_word_embeddings": True}),
    "qwen2, a token of the text pads": ("Qwen2ForCausalLM", {"tie_word_embeddings": False, "pad_token_id": 7}),
    "qwen2, tied": ("Qwen2ForCausalLM", {"tie_word_embeddings": True}),
}


WRONG: dict[str, dict[str, Any]] = {
    "another theta": {"rope_parameters": LLAMA3_ROPE | {"rope_theta": 20_000.0}},
    "RoPE not scaled": {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
    "eps a hundred times": {"rms_norm_eps": 3e-4},
    "another activation": {"hidden_act": "gelu_pytorch_tanh"},
}
"""Of a llama3's ``config.json``: what transformers would then compute."""


def trained(bench: Workbench, start: Path, *more: dict[str, Any], **fields: Any) -> StageRun:
    """A pretraining that began with a folder that transformers loads."""
    given = hugging_face(start)
    settings = {
        "model": {"name": given.model_name, "flavor": given.flavor, "hf_assets_path": None},
        "checkpoint": {"initial_load_in_hf": True, "initial_load_path": str(start)},
    }
    arguments = {key: value for key, value in given.model_args.items() if key != "moe_args"}
    run = bench.stage("pretrain", SETTINGS, settings, *more, **({"model_overrides": arguments} | fields))
    assert bench.run(run) == 0, (run.folder / "log.txt").read_text()
    return run


@pytest.mark.parametrize(("architecture", "changes"), FAMILIES.values(), ids=FAMILIES)
def test_the_losses_are_transformers(
    bench: Workbench, tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    write_hugging_face(tmp_path / "start", architecture, **changes)
    losses = prove_losses(trained(bench, tmp_path / "start").folder)
    assert [one.step for one in losses] == list(range(1, STEPS + 1))
    assert losses[-1].ours < losses[0].ours - 0.1
    assert max(one.difference for one in losses) < TOLERANCE


def test_what_transformers_would_compute_otherwise_is_noticed(
    bench: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "start"
    write_hugging_face(start, "LlamaForCausalLM", rope_parameters=LLAMA3_ROPE)
    folder = trained(bench, start).folder
    right = json.loads((start / "config.json").read_text())
    for change in ({}, {"attention_dropout": 0.5}, *WRONG.values()):
        (start / "config.json").write_text(json.dumps(right | change))
        differs = change in WRONG.values()
        assert main([str(folder)]) == differs, change
        printed = capsys.readouterr().out
        assert ("equal within 0.0001" in printed) != differs, change
        assert ("the losses differ from step" in printed) == differs, change


class Shifted:
    """Rows each of whose labels is the token after the next."""

    def __init__(self, rows: PreparedRows) -> None:
        self.rows = rows
        self.order = rows.order

    def row(self, index: int) -> Row:
        row = self.rows.row(index)
        return row._replace(labels=np.roll(row.labels, -1))


def test_labels_shifted_by_one_are_noticed_though_both_models_would_learn_them(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hugging_face(tmp_path / "start", "Qwen2ForCausalLM")
    monkeypatch.setattr("titanflow.data.mixture.open_rows", lambda *place: Shifted(open_rows(*place)))
    assert main([str(trained(bench, tmp_path / "start", {"training": {"steps": 2}}).folder)]) == 2
    assert "a row of step 1 trains another token than the one that follows" in capsys.readouterr().err


def test_random_tokens_are_read_where_the_stage_read_them_and_a_stage_without_its_files_is_refused(
    bench: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "start"
    write_hugging_face(start, "Qwen2ForCausalLM")
    folder = trained(bench, start, {"training": {"steps": 2, "mock_data": True}}).folder
    assert main([str(folder), "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    assert (proof["equal"], [one["step"] for one in proof["steps"]]) == (True, [1, 2])

    result = (folder / "result.json").read_text()
    grown = json.loads(result)
    grown["model_args"]["vocab_size"] += 8
    for name, text, said in (
        ("result.json", json.dumps(grown), "model.vocab_size: found "),
        ("result.json", result[:40], "can't be read"),
        ("metrics.jsonl", "", "metrics.jsonl has no loss"),
    ):
        kept = (folder / name).read_text()
        (folder / name).write_text(text)
        assert main([str(folder)]) == 2
        assert said in capsys.readouterr().err
        (folder / name).write_text(kept)
    (start / "model.safetensors").unlink()
    assert main([str(folder)]) == 2
    assert "the weights aren't there: model.safetensors" in capsys.readouterr().err
    start.rename(tmp_path / "elsewhere")
    assert main([str(folder)]) == 2
    assert f"checkpoint.initial_load_path: {start} isn't there" in capsys.readouterr().err


def test_a_loss_that_is_no_number_is_the_largest_difference() -> None:
    *_, largest, verdict = lines([Losses(1, 5.0, 5.0), Losses(2, nan, 5.0), Losses(3, 5.0, 5.5)])
    assert largest.endswith("is nan nats per token, at step 2")
    assert verdict == "the losses differ from step 2 on"


def test_chats_microbatches_and_a_finished_base_are_compared_too(bench: Workbench, tmp_path: Path) -> None:
    """The loss is of the answers' tokens alone, and the base's export is what transformers begins with."""
    start = tmp_path / "start"
    write_hugging_face(start, "Qwen2ForCausalLM")
    base = trained(bench, start, {"training": {"steps": 2}}, tokenizer=start)
    settings = {"training": {"steps": 12, "local_batch_size": 2, "global_batch_size": 8}}
    fields = {"stage": "sft", "base": base.folder, "data": PreparedData(train=bench.data / "chats")}
    sft = bench.stage("sft", SETTINGS, {"model": {"name": "qwen2"}}, settings, model_overrides={}, **fields)
    assert bench.run(sft) == 0, (sft.folder / "log.txt").read_text()
    losses = prove_losses(sft.folder)
    assert len(losses) == 12
    assert max(one.difference for one in losses) < TOLERANCE


MIXTURE = {
    **{"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "multiple_of": 32, "vocab_size": VOCAB},
    "moe_args.load_balance_coeff": None,
}


def test_a_mixture_whose_experts_nothing_evens_out_is_compared(bench: Workbench) -> None:
    fields = {"model_overrides": MIXTURE, "tokenizer": bench.data / "tokenizer"}
    model = {"model": {"name": "llama4", "flavor": "debugmodel"}, "training": {"steps": 12}}
    begins = bench.stage("begins", SETTINGS, model, {"training": {"steps": 1}}, **fields)
    assert bench.run(begins) == 0, (begins.folder / "log.txt").read_text()
    start = {"checkpoint": {"initial_load_in_hf": True, "initial_load_path": str(begins.folder / "export")}}
    run = bench.stage("trained", SETTINGS, model, start, **fields)
    assert bench.run(run) == 0, (run.folder / "log.txt").read_text()
    losses = prove_losses(run.folder)
    assert len(losses) == 12
    assert max(one.difference for one in losses) < TOLERANCE


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bfloat16": ({"training": {"mixed_precision_param": "bfloat16"}}, "mixed_precision_param: found 'bfloat16'"),
    "weights in bfloat16": ({"training": {"dtype": "bfloat16"}}, "training.dtype: found 'bfloat16'"),
    "steps within the backward pass": (
        {"optimizer": {"early_step_in_backward": True}},
        "optimizer.early_step_in_backward: found True",
    ),
    "layers in float8": ({"model": {"converters": ["float8"]}}, "model.converters: found .*float8"),
    "adapters": ({"lora": {"rank": 4}}, "lora.rank: found 4"),
    "a stream": ({"data": {"streaming": True}}, "data.streaming: found True"),
    "packed rows": ({"data": {"packing": "best_fit"}}, "data.packing: .* across a row's documents"),
    "drawn weights": ({}, "checkpoint.initial_load_in_hf: .* began with weights that it drew"),
}


@pytest.mark.parametrize(("settings", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused(
    bench: Workbench, settings: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.stage("stage", settings)
    finish_training(run.folder)
    with pytest.raises(ConfigError, match=said):
        prove_losses(run.folder)
    assert main([str(run.folder)]) == 2
    assert "expected:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "arguments", "said"),
    [
        ("mod", {}, "model.name: mod chooses tokens otherwise in training"),
        ("qwen2", {"dropout": 0.1}, "model.dropout: dropout draws other random numbers in the two models"),
        (
            "deepseek_v3",
            {"moe_args": {"load_balance_coeff": 1e-3}},
            "model.moe_args.load_balance_coeff: training moves",
        ),
    ],
)
def test_a_model_that_trains_otherwise_is_refused(
    bench: Workbench, family: str, arguments: dict[str, Any], said: str
) -> None:
    run = bench.stage("stage")
    finish_training(run.folder, model_name=family, model_args=arguments)
    with pytest.raises(ConfigError, match=said):
        prove_losses(run.folder)


def test_a_folder_without_a_finished_training_is_refused(bench: Workbench, tmp_path: Path) -> None:
    for folder, lacking in ((bench.stage("begun").folder, "result.json"), (tmp_path / "nowhere", "run.yaml")):
        with pytest.raises(DataError, match=f"no {lacking} of a training"):
            prove_losses(folder)
