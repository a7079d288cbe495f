import json
from pathlib import Path
from typing import Any

from titanflow.publish.card.training_data import TrainingData, hub_datasets, prepared_datasets, training_data
from titanflow.runs.contract import StageRun


def data_of(run: Path, stage: str = "pretrain", **data: Path) -> list[TrainingData]:
    """The data of a run with one training stage."""
    trained = StageRun(stage=stage, experiment="tiny", run="main", folder=run / stage, data=data)
    return training_data([trained], prepared_datasets(run))


def write_prepared(root: Path, **datasets: dict[str, Any]) -> None:
    (root / "prepare").mkdir()
    found = {str(root / name): {"name": name, **info} for name, info in datasets.items()}
    (root / "prepare" / "result.json").write_text(json.dumps({"datasets": found}))


def test_what_is_trained_on_and_what_is_held_out(tmp_path: Path) -> None:
    write_prepared(
        tmp_path,
        chats={"kind": "chat", "rows": 8, "tokens": 900, "trained_tokens": 100, "dropped": {"too_long": 2}},
        heldout={"kind": "chat", "rows": 1},
    )
    first, second = data_of(tmp_path, "sft", train=tmp_path / "chats", validation=tmp_path / "heldout")
    assert (first.stage, first.part, first.name) == ("sft", "trained on", "chats")
    assert (first.rows, first.tokens, first.trained_tokens, first.dropped) == (8, 900, 100, {"too_long": 2})
    assert (second.part, second.name, second.tokens) == ("held out", "heldout", None)


def test_a_mixture_is_its_sources(tmp_path: Path) -> None:
    members = {"a": str(tmp_path / "one"), "b": str(tmp_path / "two")}
    write_prepared(tmp_path, mixed={"mixture": {"members": members}}, one={"rows": 1}, two={"rows": 2})
    assert [(one.name, one.rows) for one in data_of(tmp_path, train=tmp_path / "mixed")] == [("one", 1), ("two", 2)]


def test_without_the_prepare_stage_the_data_says_it_itself(tmp_path: Path) -> None:
    assert [one.name for one in data_of(tmp_path, train=tmp_path / "text")] == [""]
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "dataset.json").write_text('{"name": "text", "rows": 3}')
    assert [(one.name, one.rows) for one in data_of(tmp_path, train=tmp_path / "text")] == [("text", 3)]


def test_a_stage_without_data_has_none(tmp_path: Path) -> None:
    assert data_of(tmp_path) == []


def test_datasets_of_the_hub_are_named_and_folders_are_not(tmp_path: Path) -> None:
    sources = {"a": {"dataset": "HuggingFaceTB/smoltalk"}, "b": {"dataset": str(tmp_path)}, "c": {"path": "x.jsonl"}}
    assert hub_datasets({"data": {"dataset": "roneneldan/TinyStories"}}) == ["roneneldan/TinyStories"]
    assert hub_datasets({"data": {"dataset": None, "mixture": {"sources": sources}}}) == ["HuggingFaceTB/smoltalk"]
    assert hub_datasets({"data": {"dataset": "./data/mine"}}) == []
    assert hub_datasets({}) == []
