"""Batches of rows of similar lengths, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from titanflow.data.order import Course, Order

BATCHES = 50
"""How many batches are made of rows that were sorted together: transformers' ``group_by_length`` takes as many."""

Lengths = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""The tokens of each of the given rows, without padding."""


@dataclass(frozen=True)
class Epochs:
    """Where one source's epochs of ``rows`` rows end; a training has seen ``skipped`` rows before its first."""

    rows: int
    batch: int
    skipped: int = 0

    def around(self, step: int) -> tuple[int, int]:
        """The steps from and before which a group with this step may reach: those of its epoch.

        A batch with rows of two epochs belongs to the later one.
        """
        epoch = (step * self.batch + self.skipped) // self.rows
        while self._begin(epoch + 1) <= step:
            epoch += 1
        return max(0, self._begin(epoch)), self._begin(epoch + 1)

    def _begin(self, epoch: int) -> int:
        return (epoch * self.rows - self.skipped) // self.batch


@dataclass(frozen=True)
class Phases:
    """The steps before which the phases of a mixture end; without any, all steps are one phase."""

    ends: tuple[int, ...] = ()

    def around(self, step: int) -> tuple[int, int | None]:
        before, after = [0, *(end for end in self.ends if end <= step)], (end for end in self.ends if end > step)
        return max(before), next(after, None)


class GroupedByLength(Order):
    """Another order in which the rows of :data:`BATCHES` batches are sorted by length, and then shared out to them.

    A group's batches come in an order drawn from the seed. Groups are counted from the training's first step and don't
    reach over the end of an epoch or a phase, so that a batch depends on the seed and the step alone, and each epoch
    still sees each row once.
    """

    def __init__(self, order: Order, lengths: Lengths, course: Course, seed: int, parts: Epochs | Phases) -> None:
        self.order = order
        self.lengths = lengths
        self.course = course
        self.seed = seed
        self.parts = parts
        # Successive steps are of one group, and validation or a second loader of another.
        self._grouped = lru_cache(maxsize=4)(self._group)

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        steps, within = np.divmod(positions - self.course.skipped, self.course.batch)
        found = np.empty(len(positions), dtype=np.int64)
        for step in np.unique(steps):
            begin, end = self.parts.around(int(step))
            first = begin + (int(step) - begin) // BATCHES * BATCHES
            last = first + BATCHES if end is None else min(first + BATCHES, end)
            chosen = steps == step
            found[chosen] = self._grouped(first, last)[step - first][within[chosen]]
        return found

    def shares(self, positions: int) -> dict[str, float]:
        return self.order.shares(positions)

    def _group(self, first: int, last: int) -> NDArray[np.int64]:
        """The rows of the steps from ``first`` to before ``last``, ``[steps, batch]``."""
        batch = self.course.batch
        rows = self.order.at(self.course.skipped + np.arange(first * batch, last * batch, dtype=np.int64))
        batches = rows[np.argsort(self.lengths(rows), kind="stable")].reshape(-1, batch)
        # As titanflow.data.order.permutation: numpy promises this stream alone.
        draw = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([self.seed, first, BATCHES])))
        return batches[draw.permutation(len(batches))]
