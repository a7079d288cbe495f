"""The disk that a plan's stages are forecast to take."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from best_experiment import BY, write_best_experiment
from chain_experiment import write_chain
from tiny_experiment import write_tiny_experiment

from titanflow.planning.forecast.disk import checkpoints
from titanflow.planning.forecast.forecast import Forecast
from titanflow.planning.forecast.table import total_line
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan


def disk(plan: Plan) -> dict[str, int | None]:
    return {stage.stage: stage.forecast.disk for stage in plan.stages if stage.forecast is not None}


def test_a_chain_s_checkpoints_exports_and_models(tmp_path: Path) -> None:
    configs = write_tiny_experiment(tmp_path)
    plan = make_plan("tiny", configs)
    pretrain = plan.stage("pretrain")
    assert pretrain is not None
    assert pretrain.forecast is not None
    count = pretrain.forecast.parameters
    assert count is not None
    # Steps 4, 8 and 12, weights and two moments in fp32, and the export; of the sft steps 4 and 8.
    assert disk(plan) == {
        # Its rows, as large as their files.
        "prepare": sum((tmp_path / name).stat().st_size for name in ("text.txt", "heldout.txt", "chats.jsonl")),
        "pretrain": count * (3 * 12 + 4),
        "sft": count * (2 * 12 + 4),
        "evaluate": 0,
        "publish": count * 4,
    }
    assert "of disk" in total_line(stage.forecast for stage in plan.stages if stage.forecast is not None)


def test_a_moving_mean_adapters_and_files_for_llama_cpp(tmp_path: Path) -> None:
    settings = ["pretrain.training.ema=0.9", "sft.lora.rank=2", "publish.gguf=[f16, q8_0]"]
    plan = make_plan("tiny", write_tiny_experiment(tmp_path), overrides=settings)
    found, sft = disk(plan), plan.stage("sft")
    assert sft is not None
    assert sft.forecast is not None
    whole, adapters = sft.forecast.parameters or 0, sft.forecast.trained_parameters or 0
    assert found["pretrain"] == whole * (3 * 16 + 4)
    # Checkpoints have no frozen weights, the export has all, merged.
    assert 0 < adapters < whole
    assert found["sft"] == adapters * 2 * 12 + whole * 4
    assert found["publish"] == int(whole * (4 + 2 + 34 / 32))


@pytest.mark.parametrize(
    ("steps", "interval", "newest", "decay_ratio", "every", "best", "expected"),
    [
        (12, 4, 0, None, None, "", 3),
        (13, 4, 0, None, None, "", 4),
        # Two are kept, and a third is written before the oldest goes.
        (1000, 10, 2, None, None, "", 3),
        (20, 10, 2, None, None, "", 2),
        # The step before the decay stays; one is held while it is scored, and the best for good.
        (1000, 10, 2, 0.2, None, "", 4),
        (1000, 10, 2, 0.2, 10, BY, 6),
        (1000, 300, 0, 0.5, None, "", 5),
    ],
)
def test_how_many_checkpoints_lie_there_at_most(
    steps: int, interval: int, newest: int, decay_ratio: float | None, every: int | None, best: str, expected: int
) -> None:
    rate = {"warmup_steps": 2, "decay_ratio": decay_ratio, "total_steps": None, "min_lr_factor": 0.0}
    config = {
        "training": {"steps": steps},
        "checkpoint": {"interval": interval, "keep_latest_k": newest, "enable_first_step_checkpoint": False},
        "lr_scheduler": {**rate, "decay_type": "linear"},
        "during": {"every": every},
    }
    assert checkpoints(config, best) == expected


def trained(plan: Plan, name: str) -> Forecast:
    stage = plan.stage(name)
    assert stage is not None
    assert stage.forecast is not None
    return stage.forecast


def test_muon_keeps_one_number_for_each_of_a_matrix(tmp_path: Path) -> None:
    plan = make_plan("tiny", write_tiny_experiment(tmp_path), overrides=["pretrain.optimizer.name=Muon"])
    forecast = trained(plan, "pretrain")
    assert forecast.muon is not None
    count, matrices = forecast.parameters or 0, forecast.muon.parameters
    assert 0 < matrices < count
    assert forecast.disk == 3 * (3 * 4 * count - 4 * matrices) + 4 * count


def test_the_first_step_and_a_last_one_of_the_model_alone(tmp_path: Path) -> None:
    configs = write_tiny_experiment(tmp_path)
    first, alone, every = (
        f"pretrain.checkpoint.{key}"
        for key in ("enable_first_step_checkpoint=true", "last_save_model_only=true", "keep_latest_k=0")
    )
    count = trained(make_plan("tiny", configs), "pretrain").parameters or 0
    for settings, expected in (
        # Steps 1, 4, 8 and 12.
        ([first, every], 4 * 12),
        ([first, every, "pretrain.checkpoint.interval=1"], 12 * 12),
        ([alone], 2 * 12 + 4),
        ([alone, "pretrain.checkpoint.export_dtype=bfloat16"], 2 * 12 + 2),
        # Two are kept: most lie there before the oldest of the steps 1, 4 and 8 goes.
        ([alone, first], 3 * 12),
    ):
        found = trained(make_plan("tiny", configs, overrides=settings), "pretrain").disk
        assert found == count * (expected + 4), settings


def test_a_mean_that_two_evaluations_score_is_made_once(tmp_path: Path) -> None:
    configs = write_chain(tmp_path)
    mean = "{mean: [sft, sft_b]}"
    (configs / "experiments" / "means.yaml").write_text(
        "extends: [chain.yaml]\n"
        "modules:\n"
        f"  evaluate: {{overrides: {{models: {{sft: sft, sft_b: sft_b, avg: {mean}}}}}}}\n"
        f"  eval_b: {{stage: evaluate, config: evaluate.yaml, overrides: {{models: {{avg: {mean}}},\n"
        "    tasks: [tiny_colour], include_path: ../evals, wandb: false}}\n"
        "  publish: {overrides: {evaluation: evaluate}}\n"
    )
    plan = make_plan("means", configs)
    count = trained(plan, "sft").parameters or 0
    assert (disk(plan)["evaluate"], disk(plan)["eval_b"]) == (8 * count, 0)


def test_the_mean_that_a_training_starts_from_is_a_folder_beside_it(tmp_path: Path) -> None:
    configs = write_chain(tmp_path)
    before = trained(make_plan("chain", configs), "sft_b")
    settings = ["modules.sft_b.base={mean: {of: mid, last: 2}}", "mid.checkpoint.interval=2"]
    after = trained(make_plan("chain", configs, overrides=settings), "sft_b")
    assert (after.disk or 0) - (before.disk or 0) == 4 * (before.parameters or 0)


def test_a_best_checkpoint_is_a_model_of_its_own(tmp_path: Path) -> None:
    plan = make_plan("tiny", write_best_experiment(tmp_path))
    pretrain = plan.stage("pretrain")
    assert pretrain is not None
    assert pretrain.forecast is not None
    assert disk(plan)["evaluate"] == 8 * (pretrain.forecast.parameters or 0)


def test_what_a_disk_has_no_room_for_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = write_tiny_experiment(tmp_path)
    needed = sum(one or 0 for one in disk(make_plan("tiny", configs)).values())
    for free, warns in ((needed, False), (needed - 1, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        told = "\n".join(make_plan("tiny", configs).config.warnings)
        assert ("the stages are forecast to write" in told) == warns
        assert ("checkpoint.keep_latest_k" in told) == warns
        assert ("tiny.yaml:2: workspace: " in told) == warns
