from pathlib import Path

import pytest
from finished_stage import evaluate_result, train_result

from tasks.ui.results import gate_lines, headline, held_back, markdown, rows
from titanflow.runs.results import (
    Comparison,
    GateDecision,
    PrepareResult,
    PublishResult,
    Threshold,
)

TRAINED = train_result(
    Path("/runs/pretrain"),
    step=300,
    flavor="demo",
    parameters=2_300_000,
    first_loss=7.62,
    loss=3.2146,
    tokens=1_228_800,
    seconds=90.04,
    tokens_per_second=13_640,
    seq_len=256,
)
EVALUATED = evaluate_result(
    scores={
        "pretrain": {"kind": {"acc": 0.55, "acc_stderr": 0.02}},
        "sft": {"kind": {"acc": 0.93, "acc_stderr": 0.01}, "module": {"exact_match": 0.92}},
    },
)
PREPARED = PrepareResult(
    datasets={
        "/data/a": {"name": "stdlib", "kind": "text", "rows": 10, "tokens": 2560, "dropped": {}},
        "/data/b": {"name": "chats", "kind": "chat", "rows": 5, "tokens": 500, "dropped": {"too long": 2, "empty": 1}},
    }
)
PUBLISHED = PublishResult(target="folder", location="/runs/publish/model", files={"config.json": "ab", "x": "cd"})

REACHED = Threshold(task="kind", metric="acc", value=0.9, bound=0.8, passed=True)
COMPARED = Comparison(task="kind", metric="acc", pairs=400, difference=0.01, low=-0.02, high=0.04, passed=False)
GATE = GateDecision(passed=False, reason="no better", against="c0ffee", thresholds=[REACHED], comparisons=[COMPARED])
HELD_BACK = PublishResult(target="hub", location="https://hub/a/b/tree/v2", tag="v2", status="held back", gate=GATE)


def test_a_training_is_a_row_a_figure():
    table = {row["what"]: row["value"] for row in rows(TRAINED)}
    assert table["loss"] == "3.215"
    assert table["tokens"] == "1,228,800"
    assert table["seconds"] == "90.0"
    assert "validation loss" not in table
    assert "export" not in table


def test_models_are_compared_side_by_side_with_their_errors():
    assert rows(EVALUATED) == [
        {"task": "kind", "metric": "acc", "pretrain": "0.550 ± 0.020", "sft": "0.930 ± 0.010"},
        {"task": "module", "metric": "exact_match", "pretrain": "", "sft": "0.920"},
    ]


def test_a_metric_with_several_filters_has_the_error_of_each():
    scores = {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.02, "exact_match,loose": 0.75}
    (strict, loose) = rows(evaluate_result(scores={"sft": {"sums": scores}}))
    assert (strict["sft"], loose["sft"]) == ("0.500 ± 0.020", "0.750")


def test_a_cell_of_several_lines_stays_in_its_row():
    assert markdown([{"what": "a", "value": "x|\ny"}]).splitlines()[2:] == ["| a | x&#124;<br>y |"]


def test_prepared_data_says_what_was_dropped():
    assert [row["dropped"] for row in rows(PREPARED)] == ["", "2 too long, 1 empty"]


def test_a_publication_says_where():
    assert {"what": "location", "value": "/runs/publish/model"} in rows(PUBLISHED)
    assert {"what": "files", "value": "2"} in rows(PUBLISHED)


@pytest.mark.parametrize("result", [TRAINED, EVALUATED, PREPARED, PUBLISHED, HELD_BACK])
def test_every_row_has_the_same_columns(result):
    assert len({tuple(row) for row in rows(result)}) == 1


def test_headlines():
    assert headline(TRAINED) == "step 300, first loss 7.62, loss 3.215"
    assert headline(EVALUATED) == "pretrain, sft on 2 tasks"
    assert headline(PREPARED) == "2 datasets, 3,060 tokens"
    assert headline(PUBLISHED) == "/runs/publish/model"
    assert headline(HELD_BACK) == "held back: no better"
    assert headline(PUBLISHED.model_copy(update={"status": "dry run"})) == "dry run: /runs/publish/model"


def test_what_the_gate_found_is_in_the_table():
    table = [(row["what"], row["value"]) for row in rows(HELD_BACK)]
    assert ("status", "held back") in table
    assert ("gate", "no better") in table
    threshold = "0.9, the threshold is 0.8: passed"
    comparison = "+0.01 against the last, 95 % sure of more than -0.02 (400 samples): not passed"
    assert table[-2:] == [("kind/acc", threshold), ("kind/acc", comparison)]
    assert gate_lines(HELD_BACK) == [f"kind/acc {threshold}", f"kind/acc {comparison}"]
    assert gate_lines(TRAINED) == gate_lines(PUBLISHED) == []


def test_why_it_was_held_back():
    assert held_back([TRAINED, PUBLISHED]) == ""
    assert held_back([TRAINED, HELD_BACK]) == "no better"


def test_markdown_is_a_table_whatever_its_cells_hold():
    text = markdown([{"a": "x|y", "b": 1}, {"a": "", "b": 2}])
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| x&#124;y | 1 |", "|  | 2 |"]
    assert markdown([]) == ""
