from __future__ import annotations

import itertools
import random
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from titanflow.data.chat.packing import best_fit


def rows_of(lengths: list[int], seq_len: int) -> list[list[int]]:
    """The documents of each row."""
    members, offsets = best_fit(np.asarray(lengths, np.int64), seq_len)
    return [members[start:end].tolist() for start, end in itertools.pairwise(offsets.tolist())]


def simple_best_fit(lengths: list[int], seq_len: int) -> list[list[int]]:
    """The same rule by looking at every row for every document."""
    rows: list[list[int]] = []
    left: list[int] = []
    for document in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        fitting = [row for row in range(len(rows)) if left[row] >= lengths[document]]
        if fitting:
            row = min(fitting, key=lambda row: left[row])
        else:
            row = len(rows)
            rows.append([])
            left.append(seq_len)
        rows[row].append(document)
        left[row] -= lengths[document]
    return rows


def fewest_rows(lengths: list[int], seq_len: int) -> int:
    """The best packing there is, by trying all."""

    @cache
    def fewest(remaining: tuple[int, ...], open_rows: tuple[int, ...]) -> int:
        if not remaining:
            return len(open_rows)
        first, rest = remaining[0], remaining[1:]
        choices = [fewest(rest, tuple(sorted((*open_rows, seq_len - first))))]
        for index, room in enumerate(open_rows):
            if room >= first:
                others = (*open_rows[:index], *open_rows[index + 1 :], room - first)
                choices.append(fewest(rest, tuple(sorted(others))))
        return min(choices)

    return fewest(tuple(sorted(lengths, reverse=True)), ())


def drawn(seed: int, documents: int, seq_len: int) -> list[int]:
    numbers = random.Random(seed)
    longest = numbers.randint(1, seq_len)
    return [numbers.randint(1, longest) for _ in range(documents)]


@pytest.mark.parametrize("seed", range(40))
def test_every_document_has_one_place_and_no_row_overflows(seed: int) -> None:
    lengths = drawn(seed, 200, seq_len=64)
    rows = rows_of(lengths, 64)
    assert sorted(document for row in rows for document in row) == list(range(200))
    assert all(0 < sum(lengths[document] for document in row) <= 64 for row in rows)


@pytest.mark.parametrize("seed", range(40))
def test_rows_are_filled_as_by_the_simple_rule(seed: int) -> None:
    lengths = drawn(seed, 150, seq_len=50)

    def filled(rows: list[list[int]]) -> list[list[int]]:
        # Which of two rows with the same room is taken is open; what they hold in tokens isn't.
        return sorted(sorted(lengths[document] for document in row) for row in rows)

    ours, simple = rows_of(lengths, 50), simple_best_fit(lengths, 50)
    assert len(ours) == len(simple)
    sums = [sorted(map(sum, filled(rows))) for rows in (ours, simple)]
    assert sums[0] == sums[1]


@pytest.mark.parametrize("seed", range(30))
def test_it_stays_within_the_known_bound_of_the_best_packing(seed: int) -> None:
    lengths = drawn(seed, 9, seq_len=20)
    assert len(rows_of(lengths, 20)) <= 11 / 9 * fewest_rows(lengths, 20) + 4
    assert len(rows_of(lengths, 20)) >= -(-sum(lengths) // 20)


CLOSED_FORM = {
    "nothing": ([], []),
    "one": ([7], [[0]]),
    "as long as a row": ([10, 10, 10], [[0], [1], [2]]),
    "halves": ([5, 5, 5, 5], [[0, 1], [2, 3]]),
    "one too many for two": ([6, 6, 6], [[0], [1], [2]]),
    "pairs": ([3, 7, 4, 6], [[1, 0], [3, 2]]),
    "the fullest row that has room": ([8, 5, 2], [[0, 2], [1]]),
    "ones": ([1] * 10, [list(range(10))]),
}


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_closed_forms(name: str) -> None:
    lengths, expected = CLOSED_FORM[name]
    assert rows_of(lengths, 10) == expected


def test_the_same_lengths_give_the_same_rows() -> None:
    lengths = np.asarray(drawn(3, 5000, 2048), np.int64)
    first, second = best_fit(lengths, 2048), best_fit(lengths.copy(), 2048)
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert (first[0].dtype, first[1].dtype) == (np.int64, np.int64)


def test_rows_of_real_lengths_are_nearly_full() -> None:
    numbers = np.random.default_rng(0)
    lengths: NDArray[np.int64] = np.clip(numbers.lognormal(5, 0.8, 20_000), 2, 2048).astype(np.int64)
    rows = len(best_fit(lengths, 2048)[1]) - 1
    assert lengths.sum() / (rows * 2048) > 0.99


@pytest.mark.parametrize("lengths", [[0], [5, 0], [11], [5, 11]])
def test_a_document_that_fits_no_row_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"documents of 1 to 10 tokens can be packed, not \d+ to \d+"):
        best_fit(np.asarray(lengths, np.int64), 10)
