"""The rows of a step, and what can't be shared by the ranks or a pipeline's microbatches."""

from typing import Any

import pytest

from titanflow.config.batch import global_batch_size, local_share

TENSOR = "parallelism.tensor_parallel_degree=2"


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        ({"training": {"local_batch_size": 8, "global_batch_size": -1}}, 8),
        ({"training": {"local_batch_size": 8, "global_batch_size": 64}, "launcher": {"nproc_per_node": 2}}, 64),
        ({"training": {"local_batch_size": 8}, "launcher": {"nproc_per_node": 4, "nnodes": 2}}, 64),
        (
            {
                "training": {"local_batch_size": 8},
                "launcher": {"nproc_per_node": 8},
                "parallelism": {"tensor_parallel_degree": 2, "pipeline_parallel_degree": 2},
            },
            16,
        ),
        ({}, None),
    ],
)
def test_global_batch_size(config: dict[str, Any], rows: int | None) -> None:
    assert global_batch_size(config) == rows


@pytest.mark.parametrize(
    ("rows", "local", "ranks", "share"),
    [
        (8, 8, 1, 8),
        (8, 8, 2, 4),
        (8, 8, 8, 1),
        (16, 4, 2, 4),
        (-1, 8, 4, 8),
        (8, 8, 3, None),
        (8, 8, 16, None),
        (10, 3, 2, None),
        (12, 8, 1, None),
    ],
)
def test_a_ranks_share_of_the_global_batch(rows: int, local: int, ranks: int, share: int | None) -> None:
    assert local_share(rows, local, ranks) == share


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["training.global_batch_size=48"], "found 48, with 1 data-parallel rank of 32 rows"),
        (["training.global_batch_size=65", "launcher.nproc_per_node=2"], "a multiple of 64, or of 2 and smaller"),
        (
            ["training.global_batch_size=48", "training.local_batch_size=16", "launcher.nproc_per_node=4", TENSOR],
            "found 48, with 2 data-parallel ranks of 16 rows",
        ),
        (["training.global_batch_size=0"], "-1 takes local_batch_size rows on each data-parallel rank"),
        (["validation.steps=0"], "validation.steps: found 0"),
    ],
)
def test_a_batch_that_torchtitan_would_refuse_once_it_runs(write, mistakes, given: list[str], expected: str) -> None:
    message = mistakes(write(), *(f"pretrain.{setting}" for setting in given))
    assert expected in message
    assert f"--set pretrain.{given[0].partition('=')[0]}" in message


@pytest.mark.parametrize(
    "given",
    [
        ["training.global_batch_size=64"],
        ["training.global_batch_size=16"],
        ["training.global_batch_size=32", "launcher.nproc_per_node=4"],
        ["training.global_batch_size=-1", "launcher.nproc_per_node=3"],
    ],
)
def test_a_batch_that_the_ranks_share(write, load, given: list[str]) -> None:
    load(write(), *(f"pretrain.{setting}" for setting in given))
