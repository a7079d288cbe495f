"""What a question finds: figures of both sides, their ratio with its interval, the limit beside it, and a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import comb
from statistics import median
from typing import Any, Literal, NamedTuple

COVERAGE = 0.95
"""How sure an interval shall be."""


class Interval(NamedTuple):
    """Two of the measured values, between which the true median lies with the probability ``coverage``."""

    low: float
    high: float
    coverage: float


def median_interval(values: list[float]) -> Interval:
    """The interval of the median by order statistics, whatever the values' distribution.

    The k-th smallest and the k-th largest of n values enclose the median with probability 1 - 2·P(Binomial(n, ½) < k).
    It takes the greatest k of at least :data:`COVERAGE`, or the extremes where no k has that: five values have 93.75 %.
    """
    ordered, number = sorted(values), len(values)

    def coverage(k: int) -> float:
        return 1 - 2 * sum(comb(number, below) for below in range(k)) / 2**number

    k = max((k for k in range(1, number // 2 + 1) if coverage(k) >= COVERAGE), default=1)
    return Interval(ordered[k - 1], ordered[-k], max(0.0, coverage(k)))


@dataclass(frozen=True)
class Limit:
    """The most that the machine gives, measured in the same run, in the unit of the figure beside it."""

    what: str
    value: float


@dataclass(frozen=True)
class Wanted:
    """What a figure is held to: its ``ratio`` to the peer, its own ``value``, or the ``share`` of the limit."""

    of: Literal["ratio", "value", "share"]
    relation: Literal[">=", "<="]
    bound: float

    def __str__(self) -> str:
        return f"{'≥' if self.relation == '>=' else '≤'} {self.bound:g}{'×' if self.of == 'ratio' else ''}"


@dataclass(frozen=True)
class Figure:
    """One row of the page. ``ours`` and ``theirs`` have a value a pair, in the order of the pairs.

    ``unit`` is a rate where ``higher_is_better``, and else a cost, as seconds. ``memory`` has the peaks of both sides
    in MB. Where nothing could be measured, ``not_run`` says why.
    """

    what: str
    unit: str
    ours: list[float]
    theirs: list[float] = field(default_factory=list)
    peer: str = ""
    higher_is_better: bool = True
    wanted: Wanted | None = None
    limit: Limit | None = None
    memory: tuple[float, ...] = ()
    note: str = ""
    not_run: str = ""

    @property
    def ratios(self) -> list[float]:
        """For each pair, how many times as good this project is: as fast, or as cheap."""
        pairs = zip(self.ours, self.theirs, strict=True) if self.theirs else ()
        return [own / other if self.higher_is_better else other / own for own, other in pairs]

    @property
    def share(self) -> float | None:
        """The share of the limit that is reached; None without one."""
        if self.limit is None or not self.ours:
            return None
        reached = median(self.ours)
        return reached / self.limit.value if self.higher_is_better else self.limit.value / reached

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, ``not run``, or empty where nothing is wanted."""
        if self.not_run:
            return "not run"
        if self.wanted is None:
            return ""
        found = {"ratio": self.ratios, "value": self.ours, "share": [self.share] if self.share is not None else []}
        value, bound = median(found[self.wanted.of]), self.wanted.bound
        return "met" if (value >= bound if self.wanted.relation == ">=" else value <= bound) else "missed"

    def as_json(self) -> dict[str, Any]:
        """All that is known of it; :func:`from_json` reads it back."""
        return {**asdict(self), "verdict": self.verdict}


def from_json(values: dict[str, Any]) -> Figure:
    """The figure that :meth:`Figure.as_json` wrote."""
    wanted, limit = values["wanted"], values["limit"]
    read = {"wanted": wanted and Wanted(**wanted), "limit": limit and Limit(**limit), "memory": tuple(values["memory"])}
    return Figure(**{name: value for name, value in values.items() if name != "verdict"} | read)
