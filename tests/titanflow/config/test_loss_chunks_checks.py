"""What the plan says of a chunked loss: where it can't work, and who else has such a key."""

from __future__ import annotations

import pytest

from titanflow.config.checks.module import check_module

CHUNKS = "pretrain.training.loss_chunks=8"
PIPELINE = "pretrain.parallelism.pipeline_parallel_degree=2"
PROCESSES = "pretrain.launcher.nproc_per_node=2"


def test_it_is_taken_with_whatever_computes_gradients_once(write, load) -> None:
    compiled = ("pretrain.compile.enable=true", "pretrain.parallelism.pipeline_parallel_schedule=ZBVZeroBubble")
    for settings in ([], [*compiled], ["pretrain.launcher.nproc_per_node=2"]):
        module = load(write(), CHUNKS, *settings).modules["pretrain"]
        assert check_module(module) == []
        assert module.config["training"]["loss_chunks"] == 8


@pytest.mark.parametrize("found", [0, -1, "many"])
def test_it_is_a_count(write, mistakes, found: object) -> None:
    assert "pretrain.training.loss_chunks" in mistakes(write(), f"pretrain.training.loss_chunks={found}")


@pytest.mark.parametrize("schedule", ["ZBVZeroBubble", "InterleavedZeroBubble", "DualPipeV"])
def test_a_schedule_with_two_backward_passes_is_refused(write, mistakes, schedule: str) -> None:
    chosen = f"pretrain.parallelism.pipeline_parallel_schedule={schedule}"
    message = mistakes(write(), CHUNKS, PIPELINE, PROCESSES, chosen)
    assert f"pretrain.training.loss_chunks: found 8, and {schedule} may have a second backward pass" in message


def test_others_names_lead_to_it(write, mistakes) -> None:
    assert "training.loss_chunks" in mistakes(write(), "pretrain.training.num_output_chunks=8")


def test_ranks_that_share_the_vocabulary_share_the_loss(write, mistakes, load) -> None:
    tensor = (CHUNKS, PROCESSES, "pretrain.parallelism.tensor_parallel_degree=2")
    assert check_module(load(write(), *tensor).modules["pretrain"]) == []
    message = mistakes(write(), *tensor, "pretrain.parallelism.disable_loss_parallel=true")
    assert "pretrain.parallelism.disable_loss_parallel: found true, and in 8 parts each rank" in message
