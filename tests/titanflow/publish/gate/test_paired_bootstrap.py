"""The bounds, against closed forms; and how often the gate's test passes, by simulation."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from titanflow.publish.gate.paired_bootstrap import Floats, Pairs, paired_interval

pytestmark = pytest.mark.slow

TRIALS = 1000
FEWER_TRIALS = 300
CONFIDENCE = 0.95
STATED = 1 - CONFIDENCE


def means(new: Floats, last: Floats) -> Pairs:
    return Pairs(new, last, np.ones(len(new)), "mean", higher_is_better=True)


def graded(generator: np.random.Generator, size: int, accuracy: float, agreement: float, lead: float = 0.0) -> Pairs:
    """Right and wrong answers of two models, which share what makes a question hard as often as they agree."""
    hard = generator.random(size)
    other = np.where(generator.random(size) < agreement, hard, generator.random(size))
    return means((other < accuracy + lead).astype(float), (hard < accuracy).astype(float))


def drawn(generator: np.random.Generator, size: int, errors: float = 0.0) -> Pairs:
    """Scores that are any number; the new model's are better by so many standard errors of the difference."""
    last, difference = generator.normal(size=size), generator.normal(errors / math.sqrt(size), 1, size=size)
    return means(last + difference, last)


def pass_rate(
    what: str, pairs: Callable[[np.random.Generator], Pairs], trials: int = TRIALS, margin: float = 0.0
) -> float:
    """How often a pair of models passes; printed beside what the gate states."""
    generator = np.random.default_rng(7)
    passed = [paired_interval(pairs(generator), CONFIDENCE, 500).low > margin + 1e-9 for _ in range(trials)]
    rate = float(np.mean(passed))
    print(f"\n{what}: published {rate:.1%} of {trials} times, at a confidence of {CONFIDENCE:.0%}", end="")
    return rate


def allowed(trials: int = TRIALS) -> float:
    """The stated rate, and two standard deviations of what so many trials make of it."""
    return STATED + 2 * math.sqrt(STATED * CONFIDENCE / trials)


@pytest.mark.parametrize("kind", ["0 and 1, 50 to 400 samples", "any number, 50 samples"])
def test_without_a_true_difference_it_is_published_at_most_at_the_stated_rate(kind: str) -> None:
    def pairs(generator: np.random.Generator) -> Pairs:
        if kind.startswith("any"):
            return drawn(generator, 50)
        size, accuracy = generator.choice([50, 100, 200, 400]), generator.uniform(0.3, 0.95)
        return graded(generator, size, accuracy, generator.uniform(0, 0.8))

    assert pass_rate(f"no true difference, {kind}", pairs) <= allowed()


@pytest.mark.parametrize(("size", "accuracy", "agreement"), [(10, 0.5, 0.0), (30, 0.9, 0.5), (50, 0.97, 0.8)])
def test_the_rate_is_kept_where_few_samples_differ(size: int, accuracy: float, agreement: float) -> None:
    what = f"no true difference, {size} samples, accuracy {accuracy}, agreement {agreement}"
    rate = pass_rate(what, lambda generator: graded(generator, size, accuracy, agreement), FEWER_TRIALS)
    assert rate <= allowed(FEWER_TRIALS)


@pytest.mark.parametrize(("size", "accuracy", "agreement", "margin"), [(50, 0.9, 0.9, -0.02), (200, 0.95, 0.9, -0.02)])
def test_a_model_that_is_worse_by_the_margin_passes_at_most_at_the_stated_rate(
    size: int, accuracy: float, agreement: float, margin: float
) -> None:
    def pairs(generator: np.random.Generator) -> Pairs:
        return graded(generator, size, accuracy, agreement, margin)

    rate = pass_rate(f"worse by the margin of {-margin}, {size} samples", pairs, FEWER_TRIALS, margin)
    assert rate <= allowed(FEWER_TRIALS)


def lead_of(errors: float, size: int, accuracy: float, agreement: float) -> float:
    """The lead in accuracy that is so many standard errors of the paired difference."""
    for lead in np.linspace(0.001, 0.5, 500):
        better = (1 - agreement) * (accuracy + lead) * (1 - accuracy) + agreement * lead
        worse = (1 - agreement) * accuracy * (1 - accuracy - lead)
        if lead >= errors * math.sqrt((better + worse - lead**2) / size):
            return float(lead)
    raise AssertionError("no such lead")


@pytest.mark.parametrize("kind", ["0 and 1, 100 samples", "0 and 1, 400 samples", "any number, 100 samples"])
def test_with_a_true_difference_of_three_standard_errors_it_is_published_nearly_always(kind: str) -> None:
    # A one-sided bound at 95 % finds a difference of three standard errors with the chance that a normal number is
    # above 1.645 - 3: 0.91 at best.
    size = 400 if "400" in kind else 100
    lead = lead_of(3, size, 0.6, 0.5)

    def pairs(generator: np.random.Generator) -> Pairs:
        return drawn(generator, size, 3) if kind.startswith("any") else graded(generator, size, 0.6, 0.5, lead)

    assert pass_rate(f"a true difference of three standard errors, {kind}", pairs) >= 0.85


def test_the_bounds_are_those_of_the_normal_distribution_where_samples_are_many() -> None:
    generator = np.random.default_rng(1)
    last = generator.normal(size=4000)
    pairs = means(last + generator.normal(0.1, 1, size=4000), last)
    found = paired_interval(pairs, 0.95, 4000)
    difference = pairs.new - pairs.last
    error = difference.std(ddof=1) / math.sqrt(4000)
    assert found.difference == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - 1.645 * error, abs=0.1 * error)
    assert found.high == pytest.approx(difference.mean() + 1.645 * error, abs=0.1 * error)


def test_what_the_sign_test_says_of_a_handful() -> None:
    # All of n samples in favour: the chance of it without a difference is 2^-n, below 5 % from five on.
    for count, passes in ((3, False), (4, False), (6, True)):
        found = paired_interval(means(np.ones(count), np.zeros(count)), 0.95, 10_000)
        assert (found.low > 1e-9) is passes


def test_equal_samples_are_no_difference() -> None:
    generator = np.random.default_rng(2)
    scores = generator.normal(size=80)
    assert paired_interval(means(scores, scores), 0.95, 500).low == pytest.approx(0.0, abs=1e-12)
    # Of right and wrong, equal answers say little about the next ones.
    right = np.ones(50)
    # None of n went wrong: up to 3 of n may have (the rule of three).
    assert paired_interval(means(right, right), 0.95, 2000).low == pytest.approx(-3 / 50, abs=0.01)


def test_bits_per_byte_are_compared_by_the_ratio_of_sums() -> None:
    sizes = np.array([1000.0, 10.0, 3000.0])
    last, new = -1.6 * sizes, -1.5 * sizes
    found = paired_interval(Pairs(new, last, sizes, "bits_per_byte", higher_is_better=False), 0.95, 500)
    assert found.difference == pytest.approx(0.1 / math.log(2))


def test_a_perplexity_is_compared_as_it_is_shown() -> None:
    last, new = np.full(40, -2.0), np.full(40, -1.5)
    found = paired_interval(Pairs(new, last, np.ones(40), "perplexity", higher_is_better=False), 0.95, 500)
    assert found.difference == pytest.approx(math.exp(2.0) - math.exp(1.5))
    assert 0 < found.low < found.difference <= found.high


def test_lower_is_better_turns_the_sign() -> None:
    new, last = np.array([0.0, 1.0, 0.0, 0.0] * 20), np.array([1.0, 1.0, 1.0, 0.0] * 20)
    worse = paired_interval(means(new, last), 0.95, 500)
    better = paired_interval(Pairs(new, last, np.ones(80), "mean", higher_is_better=False), 0.95, 500)
    assert worse.difference == -better.difference == -0.5
    assert better.low > 0 > worse.high


def test_the_same_samples_give_the_same_bounds() -> None:
    pairs = graded(np.random.default_rng(3), 100, 0.7, 0.5, 0.1)
    assert paired_interval(pairs, 0.9, 300) == paired_interval(pairs, 0.9, 300)
