from pathlib import Path

import pytest
from finished_stage import finish_training
from tiny_exports import POSITIONS, SIZES, VOCAB

from titan.weights.stage_model import read_model, stage_model
from titanflow.common.errors import DataError
from titanflow.runs.contract import StageRun
from titanflow.runs.training import Training, read_training


def test_a_fine_tuned_stage_has_its_bases_architecture_and_positions(
    tmp_path: Path,
) -> None:
    tokenizer = tmp_path / "tokenizer"
    common = {"experiment": "test", "run": "test"}
    base = StageRun(
        stage="pretrain",
        folder=tmp_path / "pretrain",
        config={"model": {"name": "llama3", "flavor": "debugmodel"}, "training": {"seq_len": POSITIONS}},
        model_overrides=SIZES["llama3"],
        tokenizer=tokenizer,
        **common,
    )
    base.write()
    sft = StageRun(
        stage="sft", folder=tmp_path / "sft", base=base.folder, config={"training": {"seq_len": 32}}, **common
    )
    sft.write()

    model = stage_model(Training(sft))

    assert model.args.dim == SIZES["llama3"]["dim"]
    assert model.seq_len == POSITIONS, "the weights have seen the base's positions too"
    assert model.tokenizer == tokenizer


def test_a_finished_stages_result_says_what_was_trained(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    values = {**SIZES["qwen3"], "vocab_size": VOCAB, "moe_args": {"num_experts": 4}}
    StageRun(stage="pretrain", experiment="test", run="test", folder=tmp_path).write()
    finish_training(tmp_path, model_name="qwen3", model_args=values, seq_len=77, tokenizer=tokenizer)

    model = stage_model(read_training(tmp_path))

    assert (model.name, model.seq_len, model.tokenizer) == ("qwen3", 77, tokenizer)
    assert (model.args.hidden_dim, model.args.moe_args.num_experts) == (96, 4)


@pytest.mark.parametrize("forced", [False, True])
def test_a_stage_has_its_own_debug_setting_and_not_its_bases(tmp_path: Path, forced: bool) -> None:
    """torchtitan notes it in the arguments: an sft on such a base trained, and failed in its export."""
    base = tmp_path / "pretrain"
    values = {**SIZES["qwen3"], "vocab_size": VOCAB, "moe_args": {"_debug_force_load_balance": not forced}}
    StageRun(stage="pretrain", experiment="test", run="test", folder=base).write()
    finish_training(base, model_name="qwen3", model_args=values, seq_len=77, tokenizer=tmp_path)
    config = {"debug": {"moe_force_load_balance": forced}}
    sft = StageRun(stage="sft", experiment="test", run="test", folder=tmp_path / "sft", base=base, config=config)

    assert stage_model(Training(sft)).args.moe_args._debug_force_load_balance == forced
    assert stage_model(read_training(base)).args.moe_args._debug_force_load_balance != forced


def test_what_is_no_training_stage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    for stage in (None, "evaluate"):
        if stage:
            StageRun(stage=stage, experiment="test", run="test", folder=tmp_path).write()
        with pytest.raises(DataError, match=r"(?s)no run\.yaml of a training.*expected: .*a training stage"):
            read_model(tmp_path)
