import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from titan.evaluate.scores import answers, merge_results, metric_scores, side_by_side, write_samples


def test_scores_are_numbers_by_metric_and_the_filter_is_left_out() -> None:
    results = {
        "alias": "kind",
        "sample_len": 200,
        "acc,none": np.float64(0.5),
        "acc_stderr,none": 0.03,
        "exact_match,answer": 1,
        "exact_match_stderr,answer": "N/A",
    }

    assert metric_scores(results) == {"acc": 0.5, "acc_stderr": 0.03, "exact_match": 1.0}


def test_a_metric_with_several_filters_keeps_them() -> None:
    results = {
        "exact_match,strict-match": 0.1,
        "exact_match_stderr,strict-match": 0.01,
        "exact_match,flexible-extract": 0.2,
        "exact_match_stderr,flexible-extract": 0.02,
        "acc,none": 0.3,
    }

    assert metric_scores(results) == {
        "exact_match,strict-match": 0.1,
        "exact_match_stderr,strict-match": 0.01,
        "exact_match,flexible-extract": 0.2,
        "exact_match_stderr,flexible-extract": 0.02,
        "acc": 0.3,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "N/A"])
def test_what_is_no_finite_number_is_no_score(value: object) -> None:
    assert metric_scores({"word_perplexity,none": value}) == {}


def test_the_tasks_of_a_model_are_merged_without_samples() -> None:
    first = {"results": {"a": {"acc,none": 1.0}}, "versions": {"a": 1.0}, "samples": {"a": [1]}}
    second = {"results": {"b": {"acc,none": 0.0}}, "versions": {"b": 2.0}, "samples": {"b": [2]}}

    assert merge_results([first, second], {"seed": 1}) == {
        "config": {"seed": 1},
        "results": {"a": {"acc,none": 1.0}, "b": {"acc,none": 0.0}},
        "versions": {"a": 1.0, "b": 2.0},
    }


def test_samples_are_written_by_item_with_numpys_numbers(tmp_path: Path) -> None:
    samples = {"kind": [{"doc_id": 1, "acc": np.float64(1.0)}, {"doc_id": 0, "acc": np.float64(0.0)}]}

    write_samples(tmp_path, "base", samples)

    lines = (tmp_path / "samples_base_kind.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"doc_id": 0, "acc": 0.0}, {"doc_id": 1, "acc": 1.0}]


def task(output_type: str, **methods: Any) -> Any:
    return SimpleNamespace(OUTPUT_TYPE=output_type, **methods)


def test_the_likeliest_choice_is_a_models_answer() -> None:
    kind = task("multiple_choice", doc_to_text=lambda doc: doc["q"], doc_to_choice=lambda doc: ["class", "function"])
    sample = {"doc_id": 4, "doc": {"q": "X?"}, "target": 0, "filtered_resps": [(-3.0, False), (-2.0, True)]}

    assert answers(kind, [sample]) == {4: {"question": "X?", "expected": "class", "answer": "function"}}


def test_choices_scored_without_the_question_as_well_are_no_answers() -> None:
    kind = task("multiple_choice", doc_to_text=lambda doc: "X?", doc_to_choice=lambda doc: ["class", "function"])
    responses = [(-3.0, False), (-2.0, True), (-9.0, False), (-1.0, False)]

    shown = answers(kind, [{"doc_id": 0, "doc": {}, "target": 1, "filtered_resps": responses}])

    assert shown == {0: {"question": "X?", "expected": "function", "answer": "function"}}


def test_of_beginnings_to_choose_from_the_continuation_is_the_question() -> None:
    beginnings = ["The cup was full, so the cup", "The cup was full, so the jug"]
    winogrande = task("multiple_choice", doc_to_text=lambda doc: 1, doc_to_choice=lambda doc: beginnings)
    sample = {"doc_id": 0, "doc": {}, "target": "was emptied.", "filtered_resps": [(-2.0, False), (-3.0, False)]}

    shown = {"question": "… was emptied.", "expected": beginnings[1], "answer": beginnings[0]}
    assert answers(winogrande, [sample]) == {0: shown}


def test_all_of_several_right_choices_are_expected() -> None:
    kind = task("multiple_choice", doc_to_text=lambda doc: "X?", doc_to_choice=lambda doc: ["a", "b", "c"])
    sample = {"doc_id": 0, "doc": {}, "target": [0, 2], "filtered_resps": [(-3.0, False), (-2.0, True), (-4.0, True)]}

    assert answers(kind, [sample])[0]["expected"] == "a / c"


def test_answers_that_cannot_be_shown_fail_nothing(caplog: pytest.LogCaptureFixture) -> None:
    odd = task("generate_until", doc_to_text=lambda doc: doc["missing"], config=SimpleNamespace(task="odd"))

    assert answers(odd, [{"doc_id": 0, "doc": {}, "target": "", "filtered_resps": ["a"]}]) == {}
    assert "odd: its answers can't be shown: KeyError" in caplog.text


def test_a_written_answer_is_what_the_filter_left() -> None:
    module = task("generate_until", doc_to_text=lambda doc: doc["q"])
    sample = {"doc_id": 0, "doc": {"q": " Where? "}, "target": "json", "filtered_resps": [" json\n"]}

    assert answers(module, [sample]) == {0: {"question": "Where?", "expected": "json", "answer": "json"}}


def test_a_perplexity_has_no_answers() -> None:
    assert answers(task("loglikelihood_rolling"), [{"doc_id": 0}]) == {}


def given(answer: str, items: int) -> dict[int, dict[str, str]]:
    return {item: {"question": f"q{item}", "expected": "e", "answer": answer} for item in range(items)}


def test_examples_are_spread_over_tasks_and_items() -> None:
    by_model = {
        "base": {"kind": given("wrong", 8), "bytes": {}, "module": given("no", 3)},
        "sft": {"kind": given("right", 8), "bytes": {}, "module": given("yes", 3)},
    }

    shown = side_by_side(by_model, 3)

    assert [(example["task"], example["question"]) for example in shown] == [
        ("kind", "q0"),
        ("kind", "q4"),
        ("module", "q0"),
    ]
    assert shown[0] == {"task": "kind", "question": "q0", "expected": "e", "base": "wrong", "sft": "right"}


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (4, 4), (50, 11)])
def test_there_are_no_more_examples_than_asked_for_or_than_there_are(count: int, shown: int) -> None:
    by_model = {"base": {"kind": given("a", 8), "module": given("b", 3)}}

    assert len(side_by_side(by_model, count)) == shown
