import math
from typing import Any

import pytest
from finished_stage import evaluate_result

from titanflow.publish.card.score_table import LastPublished, columns, metrics, score, score_rows
from titanflow.runs.results import EvaluateResult


def evaluated(**changes: Any) -> EvaluateResult:
    values: dict[str, Any] = {
        "scores": {"sft": {"a": {"acc": 0.5, "acc_stderr": 0.1}}, "base": {"a": {"acc": 0.25}, "b": {"f1": 0.125}}},
        "task_versions": {"a": "1.0", "b": "2.0"},
        "n_shot": {"a": 2},
        "higher_is_better": {"a": {"acc": True}},
    }
    return evaluate_result(**(values | changes))


def lineage(**changes: Any) -> dict[str, Any]:
    evaluation = {
        "scores": {"sft": {"a": {"acc": 0.375, "acc_stderr": None}}},
        "task_versions": {"a": "1.0"},
        "n_shot": {"a": 2},
        "limit": None,
    }
    return {"run": "run-6", "evaluated_as": "sft", "stages": {"evaluate": evaluation | changes}}


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({"acc": 0.5, "acc_stderr": 0.01}, "0.500 ± 0.010"),
        ({"acc": 0.5, "acc_stderr": math.nan}, "0.500"),
        ({}, "n/a"),
        ({"acc": math.inf}, "n/a"),
    ],
)
def test_a_score_with_its_error(scores: dict[str, float], text: str) -> None:
    assert str(score(scores, "acc")) == text


@pytest.mark.parametrize(
    ("share", "samples", "text"),
    # Of 0 of n samples the upper end is z² / (n + z²).
    [(0.0, 200, "0.000 (0.000 to 0.019)"), (1.0, 200, "1.000 (0.981 to 1.000)"), (0.0, 3, "0.000 (0.000 to 0.562)")],
)
def test_all_right_or_all_wrong_has_an_interval_in_place_of_an_error_of_0(
    share: float, samples: int, text: str
) -> None:
    found = {"acc": share, "acc_stderr": 0.0}
    assert str(score(found, "acc", samples)) == text
    evaluation = evaluated(scores={"sft": {"a": found}}, samples={"a": samples})
    (row,) = score_rows(evaluation, "sft")
    assert [str(one) for one in row.scores] == [text]


def test_an_error_of_0_that_is_no_share_s_stays() -> None:
    assert str(score({"acc": 0.5, "acc_stderr": 0.0}, "acc", 200)) == "0.500 ± 0.000"
    assert str(score({"acc": 0.0, "acc_stderr": 0.0}, "acc")) == "0.000 ± 0.000"


def test_a_filter_s_error_is_found_and_is_no_score() -> None:
    scores = {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.02}
    assert list(metrics(scores)) == ["exact_match,strict"]
    assert str(score(scores, "exact_match,strict")) == "0.500 ± 0.020"


def test_models_side_by_side_the_published_one_last() -> None:
    evaluation = evaluated()
    assert columns(evaluation, "sft") == ["base", "sft"]
    rows = {row.task: row for row in score_rows(evaluation, "sft")}
    assert [str(one) for one in rows["a"].scores] == ["0.250", "0.500 ± 0.100"]
    assert [str(one) for one in rows["b"].scores] == ["0.125", "n/a"]
    assert (rows["a"].arrow, rows["b"].arrow) == (" ↑", "")


def test_what_was_published_last_has_a_column() -> None:
    last = LastPublished.read(lineage())
    assert last is not None
    assert last.run == "run-6"
    rows = {row.task: row for row in score_rows(evaluated(), "sft", last)}
    assert str(rows["a"].scores[-1]) == "0.375"
    assert str(rows["b"].scores[-1]) == "n/a"


DROPPED = {"tasks": {"a": {"items": 40, "leaked": [3]}}, "looked_at": ["web"], "dropped": True}


@pytest.mark.parametrize(
    "changes",
    [{"task_versions": {"a": "1.1"}}, {"n_shot": {"a": 0}}, {"limit": 40}, {"contamination": DROPPED}],
)
def test_a_score_made_otherwise_stands_beside_none(changes: dict[str, Any]) -> None:
    last = LastPublished.read(lineage(**changes))
    (row, _) = score_rows(evaluated(), "sft", last)
    assert str(row.scores[-1]) == "n/a"


def test_a_model_published_without_an_evaluation_has_no_column() -> None:
    assert LastPublished.read({"run": "run-6", "stages": {}}) is None


def test_a_group_of_tasks_with_different_shots_says_no_number() -> None:
    assert [(row.task, row.n_shot) for row in score_rows(evaluated(), "sft")] == [("a", 2), ("b", "")]
