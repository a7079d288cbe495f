from titanflow.publish.gate.figures import figures
from titanflow.runs.results import Comparison, GateDecision, Threshold


def test_a_decision_in_figures() -> None:
    decision = GateDecision(
        passed=False,
        reason="",
        thresholds=[Threshold(task="kind", metric="acc", value=0.8125, bound=0.8, passed=True)],
        comparisons=[
            Comparison(task="kind", metric="acc", pairs=400, difference=0.03, low=-0.0081, high=0.07, passed=False)
        ],
    )
    assert figures(decision) == [
        ("kind/acc", "0.8125, the threshold is 0.8: passed"),
        ("kind/acc", "+0.03 against the last, 95 % sure of more than -0.0081 (400 samples): not passed"),
    ]
