"""The best checkpoint of a training as a model of its own: equal to that checkpoint to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_adapters import finished_base, finished_lora, random_adapters
from tiny_exports import tiny_args, write_byte_tokenizer
from tiny_means import write_stage
from torch.distributed import checkpoint as dcp

from titan.export.export import export_checkpoint
from titan.weights.mean import make_mean, unscored_steps
from titanflow.common.errors import DataError
from titanflow.config.keys.training import Lora
from titanflow.config.means.recipe import Mean
from titanflow.runs.metrics import EVALUATIONS_FILE, append_record
from titanflow.runs.results import TrainResult, read_result

pytestmark = pytest.mark.slow

BEST = Mean(("a",), (1.0,), by="dev/t/loss")


def score(stage: Path, values: dict[int, float], is_higher_better: bool = False) -> None:
    for step, value in values.items():
        better = {"t": {"loss": is_higher_better}}
        scored = {"part": "dev", "limit": None, "scores": {"t": {"loss": value}}, "higher_is_better": better}
        append_record(stage / EVALUATIONS_FILE, {"step": step, "tasks": ["t"], **scored})


def exported(source: Path, out: Path) -> dict[str, torch.Tensor]:
    export_checkpoint(source, out)
    return load_file(out / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return write_stage(tmp_path / "a", [2, 3, 4], write_byte_tokenizer(tmp_path / "tokenizer"))


def test_it_is_that_checkpoint_to_the_bit_and_says_why(stage: Path, tmp_path: Path) -> None:
    score(stage, {1: 0.7, 2: 0.5, 3: 0.6})
    made = make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best")
    assert made is not None
    assert made.best is not None
    assert (made.best.step, made.best.value, made.best.scored) == (2, 0.5, 3)
    assert [(part.stage, part.step, part.weight) for part in made.mean_of] == [("a", 2, 1.0)]
    found = exported(tmp_path / "a.best", tmp_path / "found")
    assert same(found, exported(stage / "checkpoint" / "step-2", tmp_path / "wanted"))
    assert not same(found, exported(stage, tmp_path / "last"))
    assert make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best") is None


def test_in_the_type_in_which_it_is_stored(tmp_path: Path) -> None:
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer")
    stage = write_stage(tmp_path / "a", [2, 3], tokenizer, dtype=torch.bfloat16)
    score(stage, {1: 0.5, 2: 0.6})
    make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best")
    wanted = exported(stage / "checkpoint" / "step-1", tmp_path / "wanted")
    assert same(exported(tmp_path / "a.best", tmp_path / "found"), wanted)


def test_adapters_are_merged_as_their_checkpoints_export_has_them(tmp_path: Path) -> None:
    args, lora = tiny_args("llama3"), {"rank": 4}
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer")
    model: dict[str, Any] = {"tokenizer": tokenizer}
    base = finished_base(tmp_path / "base", "llama3", args, **model)
    stage = finished_lora(tmp_path / "a", base, "llama3", args, lora, **model)
    earlier = random_adapters("llama3", args, Lora(**lora), seed=5)
    # Held aside: retention has removed it.
    dcp.save(earlier, checkpoint_id=stage / "during" / "step-2", no_dist=True)
    score(stage, {2: 0.5, 4: 0.6})
    make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best")
    found = exported(tmp_path / "a.best", tmp_path / "found")
    assert same(found, exported(stage / "during" / "step-2", tmp_path / "wanted"))
    assert not same(found, exported(stage, tmp_path / "last"))


def test_it_is_made_again_if_another_is_the_best(stage: Path, tmp_path: Path) -> None:
    score(stage, {1: 0.7, 2: 0.5})
    make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best")
    score(stage, {3: 0.4})
    assert make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best")
    result = read_result(tmp_path / "a.best")
    assert isinstance(result, TrainResult)
    assert (result.step, result.checkpoint.name) == (3, "step-3")


def test_a_larger_score_is_the_better_one_if_the_task_says_so_and_of_equal_ones_the_earliest(
    stage: Path, tmp_path: Path
) -> None:
    score(stage, {3: 0.7, 1: 0.5, 2: 0.7}, is_higher_better=True)
    made = make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best")
    assert made is not None
    assert made.step == 2


def test_what_has_no_score_is_said_and_without_any_none_is_made(stage: Path, tmp_path: Path) -> None:
    for record in (
        {"step": 1, "limit": None, "failed": "it was killed"},
        {
            "step": 2,
            "limit": 5,
            "part": "dev",
            "scores": {"t": {"loss": 0.1}},
            "higher_is_better": {"t": {"loss": False}},
        },
        {"step": 3, "limit": None, "part": "dev", "scores": {"t": {}}, "higher_is_better": {"t": {"loss": False}}},
    ):
        append_record(stage / EVALUATIONS_FILE, record)
    assert unscored_steps(BEST, {"a": stage}) == {
        1: "it was killed",
        2: "other items were asked",
        3: "the score is no number",
    }
    with pytest.raises(DataError, match="no checkpoint of a was scored by dev/t/loss: the score is no number"):
        make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best")
    assert not (tmp_path / "a.best").exists()


def test_one_that_is_gone_is_refused_unless_it_was_taken(stage: Path, tmp_path: Path) -> None:
    score(stage, {1: 0.5, 2: 0.6})
    made = make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best")
    (stage / "checkpoint" / "step-1" / ".metadata").unlink()
    assert made is not None
    assert make_mean("a.best", BEST, {"a": stage}, tmp_path / "a.best") is None
    with pytest.raises(DataError, match=r"step 1 of a, the best of 2 .* wasn't kept"):
        make_mean("other", BEST, {"a": stage}, tmp_path / "other")
