"""Batches of rows of similar lengths."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from titanflow.data.length_groups import BATCHES, Epochs, GroupedByLength, Phases
from titanflow.data.order import Course, Shuffled

ROWS, BATCH = 1003, 8
LENGTHS = np.random.RandomState(0).randint(16, 512, ROWS).astype(np.int64)


def lengths_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return LENGTHS[rows]


def grouped(rows: int = ROWS, skipped: int = 0, parts: Epochs | Phases | None = None, seed: int = 3) -> GroupedByLength:
    course = Course(steps=0, batch=BATCH, skipped=skipped, by_length=True)
    return GroupedByLength(Shuffled(rows, seed), lengths_of, course, seed, parts or Epochs(rows, BATCH, skipped))


def batches(order: GroupedByLength, first: int, last: int, skipped: int = 0) -> NDArray[np.int64]:
    return order.at(skipped + np.arange(first * BATCH, last * BATCH)).reshape(-1, BATCH)


def test_each_group_of_fifty_batches_has_the_rows_of_the_order_beneath() -> None:
    plain = Shuffled(ROWS, 3).at(np.arange(2 * BATCHES * BATCH)).reshape(2, -1)
    found = batches(grouped(), 0, 2 * BATCHES).reshape(2, -1)
    assert (np.sort(found) == np.sort(plain)).all()
    assert (found != plain).any()


def test_a_batch_s_lengths_lie_between_those_of_the_others_and_the_batches_are_shuffled() -> None:
    spans = [(lengths_of(batch).min(), lengths_of(batch).max()) for batch in batches(grouped(), 0, BATCHES)]
    ordered = sorted(spans)
    assert all(before[1] <= after[0] for before, after in pairwise(ordered))
    assert spans not in (ordered, ordered[::-1])


@pytest.mark.parametrize("rows", [ROWS, 96, 5])
def test_an_epoch_sees_each_row_once(rows: int) -> None:
    epochs = 4
    seen = batches(grouped(rows), 0, epochs * rows // BATCH).flatten()
    counts = np.bincount(seen, minlength=rows)
    assert set(counts) <= {epochs - 1, epochs}
    one = batches(grouped(rows), 0, rows // BATCH).flatten()
    assert len(set(one)) == len(one)


def test_any_step_alone_has_the_batch_that_a_training_from_the_start_has() -> None:
    whole = batches(grouped(), 0, 300)
    for step in (299, 0, 124, 125, 126, 50):
        assert (batches(grouped(), step, step + 1)[0] == whole[step]).all()


def test_another_seed_shuffles_otherwise() -> None:
    assert (batches(grouped(seed=4), 0, 9) != batches(grouped(seed=3), 0, 9)).any()


def test_a_training_that_leaves_rows_out_sees_the_epoch_s_other_rows() -> None:
    skipped = 300
    seen = Shuffled(ROWS, 3).at(np.arange(skipped))
    rest = batches(grouped(skipped=skipped), 0, (ROWS - skipped) // BATCH, skipped).flatten()
    assert not set(seen) & set(rest)
    assert len(set(rest)) == len(rest)


def test_groups_end_where_phases_do() -> None:
    plain = Shuffled(ROWS, 3).at(np.arange(100 * BATCH)).reshape(100, BATCH)
    found = batches(grouped(parts=Phases((10, 30))), 0, 100)
    for first, last in ((0, 10), (10, 30), (30, 80)):
        assert set(found[first:last].flatten()) == set(plain[first:last].flatten())


@pytest.mark.parametrize(("rows", "batch", "skipped"), [(10, 4, 0), (3, 8, 0), (100, 7, 33), (8, 8, 8)])
def test_epochs_cover_all_steps_without_overlap(rows: int, batch: int, skipped: int) -> None:
    epochs = Epochs(rows, batch, skipped)
    for step in range(60):
        begin, end = epochs.around(step)
        assert begin <= step < end
        assert {epochs.around(other) for other in range(begin, end)} == {(begin, end)}
