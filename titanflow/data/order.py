"""Which rows a step trains on: this depends only on the seed and the position, not on the number of ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=16)
def permutation(rows: int, seed: int, epoch: int, source: int = 0) -> NDArray[np.int64]:
    """The order in which one epoch visits ``rows`` rows; each ``source`` of a mixture has its own.

    A resume under a newer numpy must meet the same rows. Numpy promises never to change the stream of ``RandomState``
    (NEP 19), but not that of ``Generator``.
    """
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch, source] if source else [seed, epoch]))
    order = np.random.RandomState(bits).permutation(rows).astype(np.int64)
    order.flags.writeable = False
    return order


def visited(rows: int, seed: int, visits: NDArray[np.int64], source: int = 0) -> NDArray[np.int64]:
    """The row at each visit: visit ``n`` is in epoch ``n // rows``."""
    epochs, within = np.divmod(visits, rows)
    found = np.empty(len(visits), dtype=np.int64)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        found[chosen] = permutation(rows, seed, int(epoch), source)[within[chosen]]
    return found


@dataclass(frozen=True)
class Course:
    """What a training goes over: ``steps`` steps of ``batch`` rows, behind ``skipped`` rows that it leaves out.

    ``by_length`` asks for batches of rows of similar lengths, where rows differ in length.
    """

    steps: int
    batch: int
    skipped: int = 0
    by_length: bool = False


@dataclass(frozen=True)
class MixedSource:
    """A source, as the order of a mixture needs it."""

    name: str
    rows: int
    tokens_a_row: float
    weight: float = 1.0
    epochs: float = 1.0


class Order(ABC):
    """Which row stands at each position of an endless stream of rows."""

    @abstractmethod
    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row numbers at these positions, of the same shape ``[positions]``."""

    def shares(self, positions: int) -> dict[str, float]:
        """Each source's share of a mixture's tokens so far; empty if there is only one source."""
        return {}


class Shuffled(Order):
    """Epoch after epoch of one source: position ``p`` lies in epoch ``p // rows``, which is a permutation.

    Raises:
        ValueError: no rows, or a negative seed.
    """

    def __init__(self, rows: int, seed: int) -> None:
        if rows < 1 or seed < 0:
            raise ValueError(f"an order needs rows >= 1 and seed >= 0; got rows={rows}, seed={seed}")
        self.rows = rows
        self.seed = seed

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return visited(self.rows, self.seed, positions)
