import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_exports import (
    POSITIONS,
    SIZES,
    VOCAB,
    model_at,
    save_checkpoint,
    sensitised,
    tiny_args,
    write_byte_tokenizer,
)
from tiny_stages import write_chat_rows
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import titan.export.export
from titan.export.export import export_checkpoint, export_model, main
from titan.export.parity import ParityError
from titanflow.common.digests import folder_digests
from titanflow.common.errors import ConfigError, DataError
from titanflow.runs.contract import PreparedData, StageRun

pytestmark = pytest.mark.slow

CHATS = [{"role": "user", "content": "Is it a class?"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_tokenizer(tmp_path_factory.mktemp("tokenizers") / "bytes")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A pretraining stage's folder: two checkpoints, the newer one full, and a third that was cut off."""
    folder = tmp_path_factory.mktemp("run") / "pretrain"
    args = tiny_args("llama3")
    state = {"optimizer": {"lr": torch.tensor(0.1)}, "train_state": {"step": torch.tensor(20)}}
    save_checkpoint(sensitised("llama3", args, seed=1), folder / "checkpoint" / "step-9")
    save_checkpoint(sensitised("llama3", args, seed=2), folder / "checkpoint" / "step-20", **state)
    (folder / "checkpoint" / "step-30").mkdir()
    validation = folder / "heldout"
    validation.mkdir()
    np.save(validation / "tokens.npy", np.arange(2_000, dtype=np.uint16) % 250 + 4)
    StageRun(
        stage="pretrain",
        experiment="test",
        run="test",
        folder=folder,
        config={"model": {"name": "llama3", "flavor": "debugmodel"}, "training": {"seq_len": POSITIONS}},
        model_overrides={**SIZES["llama3"], "vocab_size": VOCAB, "rope_scaling_args.scaling_factor": 8.0},
        data=PreparedData(validation=validation),
        tokenizer=tokenizer,
    ).write()
    return folder


@pytest.fixture(scope="module")
def exported(pretrained: Path) -> titan.export.export.ExportReport:
    return export_checkpoint(pretrained, pretrained / "export")


def test_the_newest_complete_checkpoint_is_exported(exported: Any, pretrained: Path) -> None:
    native = sensitised("llama3", tiny_args("llama3"), seed=2)
    tokens = torch.arange(40)[None] * 7 % VOCAB

    loaded = AutoModelForCausalLM.from_pretrained(exported.folder, dtype=torch.float32)

    assert exported.checkpoint == pretrained / "checkpoint" / "step-20"
    with torch.inference_mode():
        torch.testing.assert_close(loaded(tokens).logits, native(tokens), rtol=1e-4, atol=1e-4)


def test_the_folder_holds_what_others_need_and_they_may_read_it(exported: Any) -> None:
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in exported.folder.iterdir()}

    assert files == dict.fromkeys(
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ],
        0o644,
    )
    assert stat.S_IMODE(exported.folder.stat().st_mode) == 0o755
    assert sorted(path.name for path in exported.folder.parent.iterdir()) == [
        "checkpoint",
        "export",
        "heldout",
        "run.yaml",
    ]


def test_the_report_says_what_was_measured_and_written(exported: Any) -> None:
    assert exported.digests == folder_digests(exported.folder)
    assert exported.parity["relative_error"] < 1e-4
    assert exported.parity["positions"] == 2 * POSITIONS, "held-out text is compared beside random tokens"
    assert exported.parameters == sum(p.numel() for p in sensitised("llama3", tiny_args("llama3")).parameters())


def test_the_config_has_the_length_trained_with(exported: Any) -> None:
    assert json.loads((exported.folder / "config.json").read_text())["max_position_embeddings"] == POSITIONS


def test_a_pipeline_chats_with_the_folder(exported: Any) -> None:
    chat = pipeline("text-generation", model=str(exported.folder), device="cpu")

    answer = chat(CHATS, max_new_tokens=4)[0]["generated_text"]

    assert answer[0] == CHATS[0]
    assert answer[1]["role"] == "assistant"
    assert AutoTokenizer.from_pretrained(exported.folder).apply_chat_template(CHATS, tokenize=False) == (
        "<|im_start|>user\nIs it a class?<|im_end|>\n"
    )


def test_one_checkpoint_of_a_stage_is_exported(pretrained: Path, tmp_path: Path) -> None:
    report = export_checkpoint(pretrained / "checkpoint" / "step-9", tmp_path / "out")

    assert report.checkpoint.name == "step-9"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
def test_a_qwen_is_exported(tmp_path: Path, tokenizer: Path, family: str, tied: bool) -> None:
    args = tiny_args(family, enable_weight_tying=tied)
    native = sensitised(family, args)

    checkpoint = save_checkpoint(native, tmp_path / "step-1")
    report = export_model(model_at(checkpoint, family, args, tokenizer), tmp_path / "out")

    loaded = AutoModelForCausalLM.from_pretrained(report.folder, dtype=torch.float32)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied
    assert torch.equal(loaded.lm_head.weight, native.output.weight)


def test_a_checkpoint_in_bfloat16_is_exported_in_fp32(tmp_path: Path, tokenizer: Path) -> None:
    args = tiny_args("llama3")
    native = sensitised("llama3", args)
    rounded = {key: value.bfloat16() for key, value in native.state_dict().items()}
    checkpoint = tmp_path / "step-1"
    torch.distributed.checkpoint.save(rounded, checkpoint_id=checkpoint)

    report = export_model(model_at(checkpoint, "llama3", args, tokenizer), tmp_path / "out")

    loaded = AutoModelForCausalLM.from_pretrained(report.folder)
    assert torch.equal(loaded.model.norm.weight, rounded["norm.weight"].float())


def test_a_flavor_with_another_attention_is_exported_as_plain_causal(tmp_path: Path, tokenizer: Path) -> None:
    args = tiny_args("llama3")
    checkpoint = save_checkpoint(sensitised("llama3", args), tmp_path / "step-1")
    trained_with = tiny_args("llama3", attn_type="flex", attn_mask_type="block_causal")

    report = export_model(model_at(checkpoint, "llama3", trained_with, tokenizer), tmp_path / "out")

    assert report.parity["relative_error"] < 1e-4
    assert trained_with.attn_type == "flex"


def write_sft(folder: Path, base: Path, **fields: Any) -> Path:
    StageRun(
        stage="sft", experiment="test", run="test", folder=folder, base=base, config=fields.pop("config"), **fields
    ).write()
    return folder


def test_the_template_that_the_chats_were_rendered_with_is_exported(tmp_path: Path, pretrained: Path) -> None:
    rows = write_chat_rows(tmp_path / "chats", 4, seed=0)
    (rows / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    config, data = {"training": {"seq_len": 64}}, PreparedData(train=rows)
    sft = write_sft(tmp_path / "sft", pretrained, config=config, data=data)
    save_checkpoint(sensitised("llama3", tiny_args("llama3")), sft / "checkpoint" / "step-3")

    report = export_checkpoint(sft, tmp_path / "out")

    loaded = AutoTokenizer.from_pretrained(report.folder)
    assert loaded.apply_chat_template(CHATS, tokenize=False) == "Is it a class?"


def test_a_mixture_of_experts_is_refused_before_anything_is_written(tmp_path: Path, tokenizer: Path) -> None:
    args = tiny_args("qwen3", moe_enabled=True)

    with pytest.raises(ConfigError, match="experts"):
        export_model(model_at(tmp_path / "step-1", "qwen3", args, tokenizer), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def break_eps(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))


def test_a_wrong_export_is_not_left_in_place_and_the_older_one_stays(
    exported: Any, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    older = export_checkpoint(pretrained, out)
    monkeypatch.setattr(titan.export.export, "add_rope_for_transformers_4", break_eps)

    with pytest.raises(ParityError, match="relative error"):
        export_checkpoint(pretrained, out)
    with pytest.raises(ParityError, match="relative error"):
        export_checkpoint(pretrained, tmp_path / "new")

    assert folder_digests(out) == older.digests
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_older_export_is_replaced_whole(pretrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export_checkpoint(pretrained / "checkpoint" / "step-9", out)
    (out / "left-over.txt").write_text("of the older one")

    second = export_checkpoint(pretrained, out)

    assert not (out / "left-over.txt").exists()
    assert second.digests["model.safetensors"] != first.digests["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_checkpoint_gives_the_same_bytes(exported: Any, pretrained: Path, tmp_path: Path) -> None:
    assert export_checkpoint(pretrained, tmp_path / "out").digests == exported.digests


def test_what_is_no_export_is_not_overwritten(pretrained: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("somebody's work")

    with pytest.raises(DataError, match="something that is no export"):
        export_checkpoint(pretrained, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "somebody's work"


def test_the_command_prints_the_report(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pretrained), str(tmp_path / "out")]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == str(tmp_path / "out")
    assert printed["digests"] == folder_digests(tmp_path / "out")


def test_the_command_ends_with_1_for_a_failed_export(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(titan.export.export, "add_rope_for_transformers_4", break_eps)

    assert main([str(pretrained), str(tmp_path / "out")]) == 1
    assert "relative error" in capsys.readouterr().err


def test_the_command_ends_with_2_for_bad_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "titan.export.export", str(tmp_path / "nowhere"), str(tmp_path / "out")]

    ended = subprocess.run(command, capture_output=True, text=True)

    assert ended.returncode == 2
    assert "no run.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
