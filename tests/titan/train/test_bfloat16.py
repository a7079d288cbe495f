"""A training whose matrix products are in bfloat16."""

from __future__ import annotations

from pathlib import Path

import dies_in_step
import pytest
from tiny_stages import Workbench, records

from titanflow.common.digests import file_digest
from titanflow.runs.contract import StageRun
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

STEPS = 8
NARROW = {
    "training": {"steps": STEPS, "mixed_precision_param": "bfloat16"},
    "checkpoint": {"interval": 3},
    "validation": {"enable": True, "freq": 4, "steps": 2, "local_batch_size": 4},
}
FSDP = {"data_parallel_replicate_degree": 1, "data_parallel_shard_degree": 2}
DDP = {"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 1}
ROUNDS = 0.01
"""Nats by which losses differ that were summed in another order: bfloat16 has three digits."""


@pytest.fixture(scope="module")
def whole(shared_bench: Workbench) -> StageRun:
    run = shared_bench.stage("narrow/pretrain", NARROW)
    assert shared_bench.run(run) == 0, log_of(run)
    return run


def log_of(run: StageRun) -> str:
    return (run.folder / "log.txt").read_text(encoding="utf-8")


def weights(run: StageRun) -> dict[str, str]:
    checkpoint: Path = read_result(run.folder).checkpoint
    return {path.name: file_digest(path) for path in checkpoint.glob("*.distcp")}


def test_killed_it_resumes_to_the_bit(bench: Workbench, whole: StageRun) -> None:
    run = bench.stage("killed/pretrain", NARROW)
    assert bench.run(run, script=dies_in_step.__file__, env={dies_in_step.DIES_IN: "5"}) == -9, log_of(run)
    assert bench.run(run) == 0, log_of(run)
    assert "Training starts at step 4" in log_of(run)
    for name in ("loss", "grad_norm", "validation_loss"):
        assert records(run, name) == records(whole, name)
    assert weights(run) == weights(whole)


def test_its_losses_are_those_of_float32_but_for_rounding(bench: Workbench, whole: StageRun) -> None:
    run = bench.stage("wide", NARROW, {"training": {"mixed_precision_param": "float32"}})
    assert bench.run(run) == 0, log_of(run)
    assert records(whole) == pytest.approx(records(run), abs=ROUNDS)
    assert records(whole) != records(run)


@pytest.mark.parametrize("degrees", [FSDP, DDP], ids=["fsdp", "ddp"])
def test_two_ranks_have_its_losses(bench: Workbench, whole: StageRun, degrees: dict[str, int]) -> None:
    run = bench.stage("two", NARROW, {"training": {"local_batch_size": 4}, "parallelism": degrees})
    assert bench.run(run, ranks=2) == 0, log_of(run)
    assert records(run) == pytest.approx(records(whole), abs=ROUNDS)
