"""Stages that Muon trains, as processes: dense layers and experts, on one rank and on two, whole and resumed."""

import shutil

import pytest
from tiny_stages import VOCAB, Workbench, records

from titanflow.runs.checkpoints import read_contents
from titanflow.runs.contract import StageRun

pytestmark = pytest.mark.slow

STEPS = 4
CONFIG = {
    "model": {"name": "deepseek_v3", "flavor": "debugmodel"},
    "training": {"steps": STEPS, "ema": 0.5},
    "optimizer": {"name": "Muon", "muon_lr": 5e-3},
    "checkpoint": {"interval": 2, "last_save_model_only": False},
    "validation": {"enable": True, "freq": 2, "local_batch_size": 4},
}
SIZE = {"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": VOCAB, "inter_dim": 128, "moe_inter_dim": 32}
MLA = {"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}


def train(bench: Workbench, name: str, *settings: dict[str, dict[str, object]], ranks: int | None = None) -> StageRun:
    run = bench.stage(name, CONFIG, *settings, model_overrides={**SIZE, **MLA})
    assert bench.run(run, ranks) == 0, (run.folder / "log.txt").read_text()
    return run


@pytest.fixture(scope="module")
def whole(shared_bench: Workbench) -> StageRun:
    return train(shared_bench, "whole")


def test_muon_takes_the_matrices_and_learns(whole: StageRun) -> None:
    log = (whole.folder / "log.txt").read_text()
    assert "Muon: " in log
    losses = records(whole)
    assert losses[STEPS] < losses[1]
    kept = read_contents(whole.folder / "checkpoint" / f"step-{STEPS}").shapes
    expert = "optimizer.state.layers.1.moe.experts.w1"
    assert {key for key in kept if key.startswith(expert)} == {f"{expert}.momentum_buffer"}
    assert "optimizer.state.tok_embeddings.weight.exp_avg_sq" in kept


def test_a_resumed_training_has_the_losses_of_the_whole_one(whole: StageRun, bench: Workbench) -> None:
    expected = {key: records(whole, key) for key in ("loss", "grad_norm", "validation_loss")}
    run = bench.stage("resumed", CONFIG, model_overrides={**SIZE, **MLA})
    shutil.copytree(whole.folder / "checkpoint" / "step-2", run.folder / "checkpoint" / "step-2")
    shutil.copy(whole.folder / "metrics.jsonl", run.folder / "metrics.jsonl")
    assert bench.run(run) == 0, (run.folder / "log.txt").read_text()
    assert "Training starts at step 3" in (run.folder / "log.txt").read_text()
    assert {key: records(run, key) for key in expected} == expected


def test_two_ranks_have_the_losses_of_one_process(whole: StageRun, bench: Workbench) -> None:
    """But for rounding: of a gradient's last bit, Newton–Schulz in bfloat16 makes a thousandth of a step."""
    two = train(bench, "two", {"parallelism": {"expert_parallel_degree": 2}}, ranks=2)
    assert records(two)[1] == pytest.approx(records(whole)[1], rel=1e-6)
    assert records(two) == pytest.approx(records(whole), rel=2e-4)
