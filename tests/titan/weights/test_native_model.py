import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_stage import write_checkpoint
from tiny_exports import SIZES, model_at, save_checkpoint, sensitised, tiny_args

from titan.models.registry import model_args_from
from titan.weights.native import load_native
from titanflow.common.errors import ConfigError, DataError
from titanflow.runs.checkpoints import newest_checkpoint


def test_a_full_checkpoints_model_is_loaded_to_the_bit(tmp_path: Path) -> None:
    args = tiny_args("llama3")
    model = sensitised("llama3", args)
    checkpoint = save_checkpoint(model, tmp_path / "step-1", train_state={"step": torch.tensor(1)})

    loaded = load_native(model_at(checkpoint, "llama3", args, positions=40))

    wanted = model.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in loaded.state_dict().items())
    assert loaded.freqs_cis.shape[0] == 40


def test_a_tied_model_needs_only_one_of_its_two_names(tmp_path: Path) -> None:
    args = tiny_args("qwen3", enable_weight_tying=True)
    model = sensitised("qwen3", args)
    state = {key: value for key, value in model.state_dict().items() if key != "output.weight"}
    torch.distributed.checkpoint.save(state, checkpoint_id=tmp_path / "step-1")

    loaded = load_native(model_at(tmp_path / "step-1", "qwen3", args))

    assert torch.equal(loaded.output.weight, model.tok_embeddings.weight)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda state: state.pop("layers.1.ffn_norm.weight"), r"it lacks layers\.1\.ffn_norm\.weight"),
        (lambda state: state.update({"layers.9.x": torch.ones(1)}), r"it has layers\.9\.x, which the model lacks"),
        (
            lambda state: state.update({"norm.weight": torch.ones(63)}),
            r"it has norm\.weight of shape \(63,\), the model's is \(64,\)",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, edit: Any, message: str) -> None:
    args = tiny_args("llama3")
    state = dict(sensitised("llama3", args).state_dict())
    edit(state)
    torch.distributed.checkpoint.save(state, checkpoint_id=tmp_path / "step-1")

    with pytest.raises(ConfigError, match=message):
        load_native(model_at(tmp_path / "step-1", "llama3", args))


def test_a_folder_without_a_complete_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "step-3").mkdir()

    with pytest.raises(DataError, match="no complete checkpoint"):
        newest_checkpoint(tmp_path)


def test_the_newest_checkpoint_is_the_one_with_the_highest_step(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        write_checkpoint(tmp_path / f"step-{step}")
    (tmp_path / "step-200").mkdir()

    assert newest_checkpoint(tmp_path).name == "step-100"


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no distributed checkpoint"):
        load_native(model_at(tmp_path, "llama3", tiny_args("llama3")))


def test_nested_arguments_are_built() -> None:
    args = model_args_from("llama3", {"dim": 64, "rope_scaling_args": {"scaling_factor": 2.0}})

    assert (args.dim, args.rope_scaling_args.scaling_factor) == (64, 2.0)
    assert args.rope_scaling_args.high_freq_factor == 4.0


@pytest.mark.parametrize("family", list(SIZES))
def test_arguments_come_back_from_a_result_as_they_were(family: str) -> None:
    """Nested ones too that a family has only where they are set, as llama4's scaling of RoPE."""
    args = tiny_args(family)
    assert model_args_from(family, json.loads(json.dumps(dataclasses.asdict(args)))) == args


def test_an_argument_that_torchtitan_does_not_have_is_named() -> None:
    with pytest.raises(DataError, match="'RoPEScalingArgs' has no field 'factor'"):
        model_args_from("llama3", {"dim": 64, "rope_scaling_args": {"factor": 2.0}})
