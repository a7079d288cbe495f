"""By how much a model scores better than another on the same samples, and how sure that is.

The bootstrap draws pairs: each sample's scores by both models stay together. So what makes a sample hard for both says
nothing about either (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

AGGREGATIONS: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda mean: mean,
    "perplexity": lambda mean: np.exp(-mean),
    "bits_per_byte": lambda mean: -mean / math.log(2),
}
"""How lm-eval computes a metric from its samples' (weighted) mean; a perplexity's samples are log-likelihoods."""

SEED = 1234
"""Fixed, so that the same samples always give the same interval."""
STEEPEST = 50.0
"""The largest tilt: the log of how much likelier the most extreme sample becomes. Beyond it nothing else is drawn."""
BISECTIONS = 30
ROUNDING = 1e-12
"""The error of equal sums of floats."""
NUMBERS_AT_ONCE = 4_000_000
"""How many counts of a resampling are in memory at a time."""


@dataclass(frozen=True)
class Pairs:
    """One metric's samples by two models, in the same order; arrays of ``[samples]``.

    ``weights`` is 1 for a plain mean; for a sum over another sum it is a text's bytes or words.
    """

    new: Floats
    last: Floats
    weights: Floats
    aggregation: str
    higher_is_better: bool

    def improvement(self, sums: Floats) -> Floats:
        """The new model's lead in score; ``sums`` is ``[..., 3]``: of new scores, of last scores and of weights."""
        score = AGGREGATIONS[self.aggregation]
        change = score(sums[..., 0] / sums[..., 2]) - score(sums[..., 1] / sums[..., 2])
        return change if self.higher_is_better else -change

    @property
    def rows(self) -> Floats:
        """``[samples, 3]``."""
        return np.stack([self.new, self.last, self.weights], axis=1)


@dataclass(frozen=True)
class Interval:
    """A difference and its one-sided bounds: each of them holds with the given confidence."""

    difference: float
    low: float
    high: float


def paired_interval(pairs: Pairs, confidence: float, resamples: int) -> Interval:
    """The difference of two models' scores with its bootstrap bounds.

    A bound is the true difference that would make the observed one as unlikely as ``1 - confidence``. To see how
    unlikely, the samples are drawn with weights that make the bound their own difference (exponential tilting: Efron,
    Canadian Journal of Statistics 9, 1981). The percentiles of a plain bootstrap would do for many samples. If only few
    of them differ, they too often pass a model that is no better: so few say little about what else could be found.

    For the same reason two pairs are added: one sample on which the new model leads by the largest lead of all, and one
    on which it trails by as much. Without them three samples in its favour and none against would count as proof. For
    scores of 0 and 1 they are the pseudo-observations of Agresti and Min (Statistics in Medicine 24, 2005); among
    hundreds of samples they no longer matter.
    """
    drawn = np.concatenate([pairs.rows, extreme_pairs(pairs)])
    total = drawn.sum(axis=0)
    without_one = pairs.improvement(total - drawn)
    influence = without_one.mean() - without_one
    sums = np.concatenate(list(resampled_sums(np.column_stack([drawn, influence]), resamples)))
    lead = pairs.improvement(sums) - pairs.improvement(total)
    bounds = []
    for reached, direction in ((lead >= -ROUNDING, -1.0), (lead <= ROUNDING, 1.0)):
        chances = Chances(sums[reached, 3], influence, resamples)
        tilt = chances.tilt(math.log(1 - confidence), direction)
        bounds.append(float(pairs.improvement(np.exp(tilt * influence) @ drawn)))
    difference = float(pairs.improvement(pairs.rows.sum(axis=0)))
    return Interval(difference, min(bounds[0], difference), max(bounds[1], difference))


@dataclass(frozen=True)
class Chances:
    """How likely a result at least as extreme is, drawing with weights ``exp(tilt * influence)``.

    Nothing is drawn again: the unweighted ``resamples`` that reached it are reweighted by how much likelier the tilt
    makes them. ``reached`` ``[reached]`` holds the sums of their influences.
    """

    reached: Floats
    influence: Floats
    resamples: int

    def log_chance(self, tilt: float) -> float:
        count = len(self.influence)
        scale = np.logaddexp.reduce(tilt * self.influence) - math.log(count)
        return float(np.logaddexp.reduce(tilt * self.reached)) - math.log(self.resamples) - count * float(scale)

    def tilt(self, log_chance: float, direction: float) -> float:
        """The tilt that makes the chance this small, by bisection; 0 if no sample differs from another."""
        largest = float(np.abs(self.influence).max())
        near, far = 0.0, direction * STEEPEST / largest if largest else 0.0
        for _ in range(BISECTIONS):
            middle = (near + far) / 2
            near, far = (near, middle) if self.log_chance(middle) < log_chance else (middle, far)
        return far


def extreme_pairs(pairs: Pairs) -> Floats:
    """The two added rows, ``[2, 3]``: one model leads by the largest difference seen, or by 1 for scores of 0 and 1."""
    scores = np.concatenate([pairs.new, pairs.last])
    is_binary = bool(np.isin(scores, (0.0, 1.0)).all())
    lead = 1.0 if is_binary else float(np.abs(pairs.new - pairs.last).max())
    last, weight = pairs.last.mean(), pairs.weights.mean()
    return np.array([[last + lead, last, weight], [last - lead, last, weight]])


def resampled_sums(rows: Floats, resamples: int) -> Iterator[Floats]:
    """Sums over as many rows as there are, drawn with replacement: ``[part of the resamples, columns]`` at a time."""
    generator = np.random.default_rng(SEED)
    # Equal rows are drawn together: scores of 0 and 1 make four kinds of pairs, however many samples there are.
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    at_once = max(1, NUMBERS_AT_ONCE // len(kinds))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        yield generator.multinomial(len(rows), counts / len(rows), size=size) @ kinds
