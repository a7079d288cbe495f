"""Intervals, ratios, shares and verdicts against numbers that are known."""

from __future__ import annotations

import json
import random
from statistics import median

import pytest
from frame.figures import Figure, Limit, Wanted, from_json, median_interval


@pytest.mark.parametrize(
    ("number", "ends", "coverage"),
    # The table of the sign test: 1 - 2·P(Binomial(n, ½) < k).
    [(1, (0, 0), 0.0), (5, (0, 4), 0.9375), (6, (0, 5), 0.96875), (9, (1, 7), 0.9609375), (20, (5, 14), 0.95861053)],
)
def test_the_interval_of_a_median_is_that_of_the_sign_test(number: int, ends: tuple[int, int], coverage: float) -> None:
    values = [10.0 * place for place in range(number)]
    random.Random(0).shuffle(values)
    found = median_interval(values)
    assert (found.low, found.high) == (10.0 * ends[0], 10.0 * ends[1])
    assert found.coverage == pytest.approx(coverage)


def test_an_interval_holds_the_true_median_as_often_as_it_says() -> None:
    draw = random.Random(0)
    # Of a skewed distribution, whose median is ln 2.
    found = [median_interval([draw.expovariate(1.0) for _ in range(9)]) for _ in range(4000)]
    held = sum(one.low <= 0.6931472 <= one.high for one in found) / len(found)
    assert held == pytest.approx(found[0].coverage, abs=0.01)


def test_a_ratio_above_one_is_better_whatever_is_measured() -> None:
    rate = Figure("rate", "tokens/s", [200.0, 300.0], [100.0, 100.0], "TRL")
    cost = Figure("cost", "s", [1.0, 2.0], [4.0, 4.0], "TRL", higher_is_better=False)
    assert rate.ratios == [2.0, 3.0]
    assert cost.ratios == [4.0, 2.0]


def test_pairs_are_compared_before_a_median_is_taken() -> None:
    # The machine became half as fast after the first pair: the ratio didn't change.
    figure = Figure("rate", "tokens/s", [200.0, 100.0, 100.0], [100.0, 50.0, 50.0], "TRL")
    assert median(figure.ratios) == 2.0


def test_the_share_of_the_limit_is_below_one_for_rates_and_costs() -> None:
    rate = Figure("rate", "tokens/s", [50.0], limit=Limit("matrix products", 200.0))
    cost = Figure("cost", "s", [4.0], limit=Limit("disk", 1.0), higher_is_better=False)
    assert (rate.share, cost.share) == (0.25, 0.25)
    assert Figure("none", "s", [4.0]).share is None


@pytest.mark.parametrize(
    ("wanted", "verdict"),
    [
        (None, ""),
        (Wanted("ratio", ">=", 2.0), "met"),
        (Wanted("ratio", ">=", 2.1), "missed"),
        (Wanted("value", "<=", 200.0), "met"),
        (Wanted("value", "<=", 199.0), "missed"),
        (Wanted("share", ">=", 0.5), "met"),
        (Wanted("share", ">=", 0.6), "missed"),
    ],
)
def test_a_median_is_held_to_what_is_wanted(wanted: Wanted | None, verdict: str) -> None:
    figure = Figure(
        "rate", "tokens/s", [200.0, 100.0, 300.0], [100.0, 50.0, 50.0], "TRL", True, wanted, Limit("matrix", 400.0)
    )
    assert figure.verdict == verdict


def test_what_was_not_run_has_that_verdict_and_no_other() -> None:
    figure = Figure("on a GPU", "tokens/s", [], wanted=Wanted("value", ">=", 1.0), not_run="no GPU")
    assert figure.verdict == "not run"


def test_a_figure_is_read_back_from_json() -> None:
    figure = Figure("rate", "tokens/s", [2.0], [1.0], "TRL", True, Wanted("ratio", ">=", 2.0), Limit("disk", 4.0))
    assert from_json(json.loads(json.dumps(figure.as_json()))) == figure
