from typing import Any

import pytest

from titanflow.publish.card.tables import export_check, gate_table, markdown_table, number_text
from titanflow.runs.results import Comparison, GateDecision, Threshold


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), ("", "n/a"), (1234567, "1,234,567"), (2.5, "2.5000"), (8e-4, "0.0008"), ("a|b", "a&#124;b")],
)
def test_number_text(value: Any, text: str) -> None:
    assert number_text(value) == text


def test_the_gate_s_figures() -> None:
    gate = GateDecision(
        passed=False,
        reason="",
        thresholds=[Threshold(task="a", metric="acc", value=0.75, bound=0.8, passed=False)],
        comparisons=[
            Comparison(task="b", metric="acc", pairs=1200, difference=0.02, low=0.001, high=float("inf"), passed=True)
        ],
    )
    assert gate_table(gate)[1:] == [
        ["a", "acc", "bound 0.8", "0.75", "not passed"],
        ["b", "acc", "1,200 pairs", "+0.0200 (+0.0010 to ∞)", "passed"],
    ]
    assert gate_table(GateDecision(passed=True, reason="")) == []


def test_a_table_without_rows_is_nothing() -> None:
    assert markdown_table([]) == ""
    assert markdown_table([["a", "b"], ["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_what_was_measured_in_words() -> None:
    figures = {"relative_error": 9.12e-8, "argmax_agreement": 1.0, "positions": 1024.0}
    figures |= {"greedy_agreement": 1.0, "greedy_tokens": 64.0}
    assert export_check(figures) == (
        "its logits differ by at most 9.1e-08 of the largest, the likeliest token is the same at all of 1,024 "
        "positions, it generates the same tokens (all of 64)"
    )
    assert export_check({"argmax_agreement": 0.9961}) == "the likeliest token is the same at 99.6% of the positions"
    assert export_check({}) == ""
