"""A gate's decision in words and figures, the same in the log, the summary, Prefect and the card."""

from __future__ import annotations

from titanflow.runs.results import Comparison, GateDecision, Threshold


def figures(decision: GateDecision) -> list[tuple[str, str]]:
    """A line for each threshold and comparison: ``task/metric``, and its figures."""
    return [
        *((f"{one.task}/{one.metric}", threshold_figure(one)) for one in decision.thresholds),
        *((f"{one.task}/{one.metric}", comparison_figure(one, decision)) for one in decision.comparisons),
    ]


def threshold_figure(threshold: Threshold) -> str:
    """As ``0.812, the threshold is 0.8: passed``."""
    return f"{threshold.value:.4g}, the threshold is {threshold.bound:g}: {outcome(threshold.passed)}"


def comparison_figure(comparison: Comparison, decision: GateDecision) -> str:
    """As ``+0.031 against the last, 95 % sure of more than +0.008 (400 samples): passed``."""
    return (
        f"{comparison.difference:+.4g} against the last, {decision.confidence * 100:g} % sure of more than "
        f"{comparison.low:+.4g} ({comparison.pairs} samples): {outcome(comparison.passed)}"
    )


def outcome(passed: bool) -> str:
    return "passed" if passed else "not passed"
