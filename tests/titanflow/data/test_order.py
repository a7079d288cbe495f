from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from titanflow.data.order import Shuffled, permutation


def test_each_epoch_visits_every_row_once() -> None:
    stream = np.concatenate([Shuffled(10, seed=3).global_batch(step, 4) for step in range(10)])
    for epoch in range(4):
        assert sorted(stream[epoch * 10 : (epoch + 1) * 10]) == list(range(10))


def test_epochs_and_seeds_differ() -> None:
    assert permutation(50, 0, 0).tolist() != permutation(50, 0, 1).tolist()
    assert permutation(50, 0, 0).tolist() != permutation(50, 1, 0).tolist()


def test_a_batch_is_the_same_whatever_was_asked_before() -> None:
    forwards = [Shuffled(7, seed=5).global_batch(step, 3).tolist() for step in range(6)]
    permutation.cache_clear()
    backwards = [Shuffled(7, seed=5).global_batch(step, 3).tolist() for step in reversed(range(6))]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_one_batch_without_overlap(ranks: int) -> None:
    whole = Shuffled(100, seed=0).global_batch(2, 8)
    slices = [whole[rank * (8 // ranks) : (rank + 1) * (8 // ranks)] for rank in range(ranks)]
    assert np.concatenate(slices).tolist() == whole.tolist()


def test_batch_size_only_cuts_the_stream() -> None:
    small = np.concatenate([Shuffled(9, seed=1).global_batch(step, 2) for step in range(12)])
    large = np.concatenate([Shuffled(9, seed=1).global_batch(step, 8) for step in range(3)])
    assert small.tolist() == large.tolist()


def test_a_batch_larger_than_an_epoch_spans_several() -> None:
    batch = Shuffled(3, seed=0).global_batch(0, 11)
    assert [sorted(batch[start : start + 3]) for start in (0, 3, 6)] == [[0, 1, 2]] * 3


def test_the_order_is_the_same_in_every_process_and_release() -> None:
    assert permutation(10, 42, 0).tolist() == KNOWN_ORDER
    code = "from titanflow.data.order import permutation; print(permutation(10, 42, 0).tolist())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == str(KNOWN_ORDER)


@pytest.mark.parametrize("wrong", [(0, 0, 5, 0), (0, 4, 0, 0), (-1, 4, 5, 0), (0, 4, 5, -1)])
def test_impossible_batches_are_refused(wrong: tuple[int, int, int, int]) -> None:
    step, size, rows, seed = wrong
    with pytest.raises(ValueError, match=r"rows >= 1|batch_size >= 1"):
        Shuffled(rows, seed).global_batch(step, size)


KNOWN_ORDER = [1, 8, 5, 3, 7, 9, 4, 0, 6, 2]
