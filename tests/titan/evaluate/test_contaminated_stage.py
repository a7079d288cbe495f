"""An evaluation of items that its models were trained on: reported, dropped, or an error before a model is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_evals import KINDS, MODULES
from tiny_evaluation import Trained, evaluation, give_rows, samples, write_trained

import titan.evaluate.evaluate
from titan.evaluate.evaluate import evaluate_stage
from titanflow.common.errors import DataError
from titanflow.runs.contract import StageRun

pytestmark = pytest.mark.slow

LEAKED = [1, 4, 5]
NAMES = {"tiny_kind": ("class", "function"), "tiny_module": ("json", "csv", "ast")}


def chat(question: str, answer: str) -> str:
    return f"user\n{question.upper()}\nassistant\n  {answer}.\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    trained = write_trained(tmp_path_factory.mktemp("run"))
    leaked = [chat(KINDS[number][0], "class" if KINDS[number][1] else "function") for number in LEAKED]
    give_rows(trained.folder / "sft", "chats", [*leaked, chat(MODULES[0][0], "csv")])
    give_rows(trained.folder / "pretrain", "prose", ["nothing of it", "name1 is a class or a function"])
    return trained


@pytest.fixture
def stage(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StageRun]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")

    def made(**settings: Any) -> StageRun:
        shutil.rmtree(tmp_path / "evaluate", ignore_errors=True)
        return evaluation(trained, tmp_path / "evaluate", **{"models": ["sft"], "tasks": ["tiny_group"], **settings})

    return made


def test_what_leaked_is_counted_beside_the_scores_of_all(stage: Callable[..., StageRun]) -> None:
    result = evaluate_stage(stage(models=["base", "sft"]))

    found = result.contamination
    assert found is not None
    assert {name: task.leaked for name, task in found.tasks.items()} == {"tiny_kind": LEAKED, "tiny_module": []}
    assert (found.looked_at, found.not_looked_at, found.dropped) == (["prose", "chats"], [], False)
    assert result.samples == {"tiny_kind": len(KINDS), "tiny_module": len(MODULES)}


def test_a_model_is_not_blamed_for_what_another_was_trained_on(stage: Callable[..., StageRun]) -> None:
    result = evaluate_stage(stage(models=["base"]))

    assert result.contamination is not None
    assert (result.contamination.leaked, result.contamination.looked_at) == ({}, ["prose"])


@pytest.mark.parametrize("limit", [None, 5])
def test_dropped_items_are_not_scored(stage: Callable[..., StageRun], limit: int | None) -> None:
    whole = stage(tasks=["tiny_kind"], limit=limit)
    evaluate_stage(whole)
    every = {sample["doc_id"]: sample for sample in samples(whole, "sft", "tiny_kind")}

    run = stage(contamination="drop", limit=limit)
    result = evaluate_stage(run)

    kept = samples(run, "sft", "tiny_kind")
    expected = [number for number in range(limit or len(KINDS)) if number not in LEAKED]
    assert [sample["doc_id"] for sample in kept] == expected
    assert [sample["doc_hash"] for sample in kept] == [every[number]["doc_hash"] for number in expected]
    assert [sample["acc"] for sample in kept] == [every[number]["acc"] for number in expected]
    accuracy = result.scores["sft"]["tiny_kind"]["acc"]
    assert accuracy == pytest.approx(np.mean([every[number]["acc"] for number in expected]))
    assert result.samples == {"tiny_kind": len(expected), "tiny_module": limit or len(MODULES)}
    written = json.loads((run.folder / "results_sft.json").read_text())
    assert written["n-samples"]["tiny_kind"]["effective"] == len(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"contamination": "error"},
            r"3 of 12 items of tiny_kind \(25.0%\) were trained on, in chats: the first is item 1",
        ),
        ({"contamination": "error", "limit": 2}, "1 of 2 items of tiny_kind"),
    ],
)
def test_an_error_comes_before_any_model(
    stage: Callable[..., StageRun], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(titan.evaluate.evaluate, "load_lm", lambda *_: pytest.fail("a model was loaded"))

    with pytest.raises(DataError, match=message):
        evaluate_stage(stage(**settings))


def test_where_all_leaked_nothing_is_left_to_drop(
    stage: Callable[..., StageRun], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titanflow.data.held_out.leaked_items.LeakSearch.leaked", property(lambda search: all_leaked()))

    with pytest.raises(DataError, match="nothing is left to score"):
        evaluate_stage(stage(contamination="drop", tasks=["tiny_kind"]))


def all_leaked() -> dict[str, Any]:
    from titanflow.data.held_out.leaked_items import Leaked

    return {"tiny_kind": Leaked(len(KINDS), list(range(len(KINDS))))}


def test_nobody_looks_where_it_is_skipped(stage: Callable[..., StageRun]) -> None:
    assert evaluate_stage(stage(contamination="skip", tasks=["tiny_kind"], limit=1)).contamination is None
