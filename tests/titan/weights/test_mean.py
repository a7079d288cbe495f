"""The mean of models: what of it is exported is the fp64 mean of what is exported of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_exports import write_byte_tokenizer
from tiny_means import write_stage

from titan.export.export import export_checkpoint
from titan.weights.mean import make_mean
from titanflow.common.errors import DataError
from titanflow.config.means.recipe import Mean
from titanflow.runs.results import TrainResult, read_result, write_result

pytestmark = pytest.mark.slow


def exported(source: Path, out: Path) -> dict[str, torch.Tensor]:
    export_checkpoint(source, out)
    return load_file(out / "model.safetensors")


def reference(parts: list[tuple[float, dict[str, torch.Tensor]]]) -> dict[str, torch.Tensor]:
    """The weighted sum in fp64, in the order of the models."""
    total: dict[str, Any] = {}
    for weight, tensors in parts:
        for key, value in tensors.items():
            part = value.double() * weight
            total[key] = total[key] + part if key in total else part
    return {key: value.float() for key, value in total.items()}


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, Path]:
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer")
    return {
        "a": write_stage(tmp_path / "a", [0], tokenizer),
        "b": write_stage(tmp_path / "b", [1], tokenizer),
        "long": write_stage(tmp_path / "long", [2, 3, 4, 5], tokenizer),
    }


def test_a_mean_of_stages_is_the_fp64_mean_of_their_exports(stages: dict[str, Path], tmp_path: Path) -> None:
    assert make_mean("avg", Mean(("a", "b"), (0.3, 0.7)), stages, tmp_path / "avg")
    parts = [(0.3, exported(stages["a"], tmp_path / "ea")), (0.7, exported(stages["b"], tmp_path / "eb"))]
    found = exported(tmp_path / "avg", tmp_path / "eavg")
    wanted = reference(parts)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert not any(torch.equal(found[key], parts[0][1][key]) for key in wanted)


def test_a_mean_of_the_last_checkpoints_leaves_the_earlier_out(stages: dict[str, Path], tmp_path: Path) -> None:
    make_mean("avg", Mean(("long",), (1 / 3,) * 3, last=3), stages, tmp_path / "avg")
    steps = [exported(stages["long"] / "checkpoint" / f"step-{step}", tmp_path / f"e{step}") for step in (2, 3, 4)]
    wanted, found = reference([(1 / 3, one) for one in steps]), exported(tmp_path / "avg", tmp_path / "eavg")
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    result = read_result(tmp_path / "avg")
    assert isinstance(result, TrainResult)
    assert [(part.stage, part.step) for part in result.mean_of] == [("long", 2), ("long", 3), ("long", 4)]
    assert (result.step, result.loss, result.export) == (4, None, None)


def test_a_mean_of_the_last_checkpoints_leaves_those_of_interruptions_out(tmp_path: Path) -> None:
    """Step 3 was saved on a SIGTERM, or as the last one before there were more steps."""
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer")
    stage = write_stage(tmp_path / "long", [2, 3, 4, 5, 6], tokenizer, interval=2)
    make_mean("avg", Mean(("long",), (1 / 3,) * 3, last=3), {"long": stage}, tmp_path / "avg")
    result = read_result(tmp_path / "avg")
    assert isinstance(result, TrainResult)
    assert [part.step for part in result.mean_of] == [2, 4, 5]


def test_the_first_models_moving_mean_is_not_said_to_be_the_means(stages: dict[str, Path], tmp_path: Path) -> None:
    result = read_result(stages["a"])
    assert isinstance(result, TrainResult)
    write_result(stages["a"], result.model_copy(update={"ema": 0.999}))
    made = make_mean("avg", Mean(("a", "b"), (0.5, 0.5)), stages, tmp_path / "avg")
    assert made is not None
    assert made.ema is None


def test_it_is_made_once_and_again_if_a_stage_changes(stages: dict[str, Path], tmp_path: Path) -> None:
    mean, folder = Mean(("a", "b"), (0.5, 0.5)), tmp_path / "avg"
    assert make_mean("avg", mean, stages, folder)
    assert not make_mean("avg", mean, stages, folder)
    assert make_mean("avg", Mean(("a", "b"), (0.25, 0.75)), stages, folder)
    write_stage(stages["a"], [7], tmp_path / "tokenizer")
    (stages["a"] / "result.json").write_text((stages["a"] / "result.json").read_text() + "\n")
    assert make_mean("avg", Mean(("a", "b"), (0.25, 0.75)), stages, folder)
    assert not (tmp_path / "superseded").exists()


def test_a_stage_that_had_the_name_is_set_aside(stages: dict[str, Path], tmp_path: Path) -> None:
    write_stage(tmp_path / "avg", [9], tmp_path / "tokenizer")
    make_mean("avg", Mean(("a", "b"), (0.5, 0.5)), stages, tmp_path / "avg")
    assert (tmp_path / "superseded" / "avg-1" / "checkpoint" / "step-1").is_dir()


def test_it_keeps_the_type_in_which_its_models_are_stored(tmp_path: Path) -> None:
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer")
    stages = {
        name: write_stage(tmp_path / name, [seed], tokenizer, dtype=torch.bfloat16)
        for seed, name in enumerate(("a", "b"))
    }
    make_mean("avg", Mean(("a", "b"), (0.5, 0.5)), stages, tmp_path / "avg")
    found = exported(tmp_path / "avg", tmp_path / "eavg")
    parts = [(0.5, exported(stages[name], tmp_path / f"e{name}")) for name in ("a", "b")]
    assert all(torch.equal(found[key], value.bfloat16().float()) for key, value in reference(parts).items())


def test_unlike_models_and_missing_checkpoints_are_refused(stages: dict[str, Path], tmp_path: Path) -> None:
    other = write_stage(tmp_path / "other", [0], write_byte_tokenizer(tmp_path / "t2", None), family="qwen3")
    with pytest.raises(DataError, match="a at step 1 and other at step 1 are unlike: the family is llama3 and qwen3"):
        make_mean("avg", Mean(("a", "other"), (0.5, 0.5)), {**stages, "other": other}, tmp_path / "avg")
    with pytest.raises(DataError, match="found 4 complete checkpoints"):
        make_mean("avg", Mean(("long",), (0.2,) * 5, last=5), stages, tmp_path / "avg")
    (stages["b"] / "result.json").unlink()
    with pytest.raises(DataError, match="a stage that hasn't finished"):
        make_mean("avg", Mean(("a", "b"), (0.5, 0.5)), stages, tmp_path / "avg")
    assert not (tmp_path / "avg").exists()
