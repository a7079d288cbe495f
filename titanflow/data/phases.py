"""The order of a mixture with phases: each part of the training takes its rows by weights of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from titanflow.data.order import MixedSource, Order, visited

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class PhaseRows:
    """A phase as rows: how many it has, and the weight of each source in it."""

    rows: int
    weights: Mapping[str, float]


class PhasedOrder(Order):
    """Which row stands at a position, where a mixture's weights change from phase to phase.

    The phases begin behind the ``skipped`` rows that an earlier training has seen, and the last one has no end. These
    rows count as if that training had gone through the same phases, so that each source continues where it was: night
    after night no row is seen again before its source is through.

    Raises:
        ValueError: a phase without a row.
    """

    def __init__(
        self,
        sources: Sequence[MixedSource],
        phases: Sequence[PhaseRows],
        by: Literal["rows", "tokens"],
        seed: int,
        skipped: int = 0,
    ) -> None:
        if not phases or any(phase.rows < 1 for phase in phases):
            raise ValueError(f"each phase needs a row; got {[phase.rows for phase in phases]}")
        self.sources = list(sources)
        self.seed = seed
        self.skipped = skipped
        self._starts = np.cumsum([0, *(source.rows for source in sources)])
        self._counts = np.array([_counts(self.sources, phase, by) for phase in phases])
        self._begins = np.cumsum([0, *(phase.rows for phase in phases)])
        # How many rows of each source stand before each phase.
        self._before = np.cumsum([np.zeros_like(self._counts[0]), *self._counts], axis=0)
        cycles, rest = divmod(skipped, int(self._begins[-1]))
        self._seen = cycles * self._before[-1] + self._taken(rest)

    def at(self, positions: Numbers) -> Numbers:
        """The rows at these positions, with the numbers of :class:`titanflow.data.mixture.MixedRows`."""
        places = positions - self.skipped
        phases = self._phase(places)
        rows = np.empty(len(positions), np.int64)
        for phase in np.unique(phases):
            here = phases == phase
            chosen, numbers = dealt(self._counts[phase], places[here] - self._begins[phase])
            visits = self._seen[chosen] + self._before[phase][chosen] + numbers
            found = np.empty(len(chosen), np.int64)
            for source in np.unique(chosen):
                of_source = chosen == source
                count = self.sources[source].rows
                found[of_source] = self._starts[source] + visited(count, self.seed, visits[of_source], int(source) + 1)
            rows[here] = found
        return rows

    def shares(self, positions: int) -> dict[str, float]:
        counts = self._seen + self._taken(positions - self.skipped)
        tokens = counts * np.array([source.tokens_a_row for source in self.sources])
        shares = tokens / (tokens.sum() or 1)
        return {source.name: float(share) for source, share in zip(self.sources, shares, strict=True)}

    def _phase(self, places: Numbers) -> Numbers:
        return np.searchsorted(self._begins[1:-1], places, side="right")

    def _taken(self, rows: int) -> Numbers:
        """How many of the first ``rows`` rows are each source's."""
        phase = int(self._phase(np.array([rows]))[0])
        counts, rest = self._counts[phase], rows - int(self._begins[phase])
        first, chosen, _ = _around(counts, rest, rest)
        return np.asarray(
            self._before[phase] + first + np.bincount(chosen[: rest - first.sum()], minlength=len(counts))
        )


def _counts(sources: Sequence[MixedSource], phase: PhaseRows, by: str) -> Numbers:
    """The rows of each source in a phase: its share rounded down, and one more where the most is missing."""
    rates = np.array(
        [phase.weights.get(one.name, 0.0) / (one.tokens_a_row if by == "tokens" else 1) for one in sources]
    )
    wanted = phase.rows * rates / rates.sum()
    counts = np.floor(wanted).astype(np.int64)
    missing = np.argsort(counts - wanted, kind="stable")[: phase.rows - counts.sum()]
    counts[missing] += 1
    return counts


def dealt(counts: Numbers, places: Numbers) -> tuple[Numbers, Numbers]:
    """The source at each place, and how many of its rows stand before.

    Of ``total = counts.sum()`` rows, the n-th of a source is due at ``(n + 1/2) * total / count``: so each stands as
    evenly as it can, and has exactly its count after ``total``. Only rows that are due about the asked places are
    looked at, since a phase may have many more.
    """
    first, chosen, numbers = _around(counts, int(places.min()), int(places.max()))
    found = places - first.sum()
    return chosen[found], numbers[found]


def _around(counts: Numbers, low: int, high: int) -> tuple[Numbers, Numbers, Numbers]:
    """The rows that stand from place ``low`` to ``high`` or near: sources and numbers, and each source's first number.

    Before a moment t, at most half a row more or less of each source is due than its share of t. So whatever is due a
    row for each source earlier stands before ``low``.
    """
    share, margin = counts / counts.sum(), len(counts) + 1
    first, end = (
        np.maximum(0, np.ceil(moment * share - 0.5)).astype(np.int64) for moment in (low - margin, high + 1 + margin)
    )
    chosen = np.repeat(np.arange(len(counts)), end - first)
    numbers = np.concatenate([np.arange(*span) for span in zip(first, end, strict=True)])
    order = np.argsort((numbers + 0.5) / share[chosen], kind="stable")
    return first, chosen[order], numbers[order]
