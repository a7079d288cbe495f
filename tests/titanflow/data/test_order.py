from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from global_batch import global_batch

from titanflow.data.order import Shuffled, permutation


def test_each_epoch_visits_every_row_once() -> None:
    stream = np.concatenate([global_batch(Shuffled(10, seed=3), step, 4) for step in range(10)])
    for epoch in range(4):
        assert sorted(stream[epoch * 10 : (epoch + 1) * 10]) == list(range(10))


def test_epochs_and_seeds_differ() -> None:
    assert permutation(50, 0, 0).tolist() != permutation(50, 0, 1).tolist()
    assert permutation(50, 0, 0).tolist() != permutation(50, 1, 0).tolist()


def test_a_batch_is_the_same_whatever_was_asked_before() -> None:
    forwards = [global_batch(Shuffled(7, seed=5), step, 3).tolist() for step in range(6)]
    permutation.cache_clear()
    backwards = [global_batch(Shuffled(7, seed=5), step, 3).tolist() for step in reversed(range(6))]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_one_batch_without_overlap(ranks: int) -> None:
    whole = global_batch(Shuffled(100, seed=0), 2, 8)
    slices = [whole[rank * (8 // ranks) : (rank + 1) * (8 // ranks)] for rank in range(ranks)]
    assert np.concatenate(slices).tolist() == whole.tolist()


def test_batch_size_only_cuts_the_stream() -> None:
    small = np.concatenate([global_batch(Shuffled(9, seed=1), step, 2) for step in range(12)])
    large = np.concatenate([global_batch(Shuffled(9, seed=1), step, 8) for step in range(3)])
    assert small.tolist() == large.tolist()


def test_a_batch_larger_than_an_epoch_spans_several() -> None:
    batch = global_batch(Shuffled(3, seed=0), 0, 11)
    assert [sorted(batch[start : start + 3]) for start in (0, 3, 6)] == [[0, 1, 2]] * 3


def test_the_order_is_the_same_in_every_process_and_release() -> None:
    assert permutation(10, 42, 0).tolist() == KNOWN_ORDER
    code = "from titanflow.data.order import permutation; print(permutation(10, 42, 0).tolist())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == str(KNOWN_ORDER)


@pytest.mark.parametrize("wrong", [(0, 0), (5, -1)])
def test_impossible_orders_are_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="rows >= 1"):
        Shuffled(*wrong)


KNOWN_ORDER = [1, 8, 5, 3, 7, 9, 4, 0, 6, 2]
