"""What a prepare job needs of the Hub is fetched before it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from titanflow.data import fetch
from titanflow.data.prepare_plan import PreparePlan
from titanflow.runs.contract import DATASET_FILE, StageRun


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(fetch, "load_from_hub", lambda data: found.append(data.dataset))
    monkeypatch.setattr(fetch, "download_tokenizer", lambda *asked: found.append(asked))
    monkeypatch.setattr(fetch, "download_weights", lambda *asked: found.append(asked))
    return found


def test_only_what_is_missing_is_fetched(
    prepare_run: Callable[..., StageRun], fetched: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("text")
    local = {"name": "local", "path": str(tmp_path / "text.txt")}
    run = prepare_run({"name": "a", "dataset": "owner/a"}, {"name": "b", "dataset": "owner/b"}, local)
    done = Path(run.config["datasets"][1]["folder"])
    done.mkdir(parents=True)
    (done / DATASET_FILE).touch()
    run.config["tokenizer"] |= {"repo_id": "owner/t", "revision": "c0ffee", "train_on": {}}
    run.config["weights"] = [{"repo_id": "owner/m", "revision": "beef", "folder": "/m"}]
    fetch.fetch(PreparePlan.model_validate(run.config))
    assert fetched == [("owner/t", "c0ffee"), ("owner/m", "beef", Path("/m")), "owner/a"]


def test_text_that_only_the_tokenizer_is_trained_on_is_fetched(
    prepare_run: Callable[..., StageRun], fetched: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("text")
    run = prepare_run({"name": "local", "path": str(tmp_path / "text.txt")}, train_on={"dataset": "owner/text"})
    fetch.fetch(PreparePlan.model_validate(run.config))
    assert fetched == ["owner/text"]
