from __future__ import annotations

from titanflow.report.pictures import score_svgs
from titanflow.report.scores import Answers, answers, score_panels

RECORDS = [
    {"step": 400, "scores": {"kind": {"acc": 0.5, "acc_stderr": 0.1}, "bytes": {"bits_per_byte": 2.0}}},
    {"step": 800, "failed": "killed"},
    {"step": 1200, "scores": {"kind": {"acc": 0.75, "acc_stderr": 0.1}}},
]


def test_a_panel_for_each_metric_that_has_a_curve() -> None:
    (panel,) = score_panels(RECORDS)
    assert (panel.title, panel.ylabel) == ("kind", "acc")
    assert panel.lines[0].points == [(400, 0.5), (1200, 0.75)]
    (svg,) = score_svgs(RECORDS)
    assert "kind acc" in svg


def test_of_a_step_that_was_scored_twice_the_last_counts_and_steps_are_in_order() -> None:
    again = [*RECORDS, {"step": 400, "scores": {"kind": {"acc": 0.625}}}]
    assert score_panels(again)[0].lines[0].points == [(400, 0.625), (1200, 0.75)]
    assert score_panels([]) == []


def test_answers_at_a_few_steps_the_first_and_the_last_among_them() -> None:
    given = [{"step": step, "prompt": one, "answer": f"{one}{step}"} for step in range(1, 11) for one in "ab"]
    assert answers(given) == Answers(
        [1, 4, 7, 10], {one: [f"{one}{step}" for step in (1, 4, 7, 10)] for one in "ab"}, 6
    )
    assert answers(given[:2]) == Answers([1], {"a": ["a1"], "b": ["b1"]}, 0)
    assert answers(given[:3]) == Answers([1, 2], {"a": ["a1", "a2"], "b": ["b1", ""]}, 0)
    assert answers([]) is None
