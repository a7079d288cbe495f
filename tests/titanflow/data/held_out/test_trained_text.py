"""What stages trained on is text again, as far back as folders are there; what isn't there is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_stage import finish_training

from titanflow.data.dataset_info import DatasetInfo
from titanflow.data.held_out import trained_text
from titanflow.data.held_out.trained_text import TrainedOn
from titanflow.data.prepared import write_rows
from titanflow.data.tokenizer.tokenizer import load_tokenizer, train_tokenizer
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.results import Averaged

TEXTS = ["def f(x):\n    return x\n", "Grüße — 東京.\n" * 20, "x = 1\n"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    train_tokenizer(TEXTS, 300, tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def prepared(folder: Path, tokenizer: Path, texts: list[str], **info: Any) -> Path:
    loaded = load_tokenizer(tokenizer)
    ids = [np.array(loaded.encode(text), np.uint16) for text in texts]
    folder.mkdir()
    counts = {"documents": len(ids), "tokens": sum(map(len, ids)), "trained_tokens": 0, "bytes": 0}
    facts = {"kind": "text", "name": folder.name, "fingerprint": "", "dtype": "uint16", "vocab_size": 300, "pad_id": 3}
    write_rows(folder, DatasetInfo(**{**facts, **counts, **info}), ids, np.array(list(map(len, ids)), np.int64))
    return folder


def stage(folder: Path, tokenizer: Path | None, train: Path | None = None, **more: Any) -> Path:
    base = {"stage": folder.name, "experiment": "tiny", "run": "main", "folder": folder}
    StageRun(**{**base, "tokenizer": tokenizer, "data": PreparedData(train=train), **more}).write()
    return folder


def test_documents_are_text_again(tmp_path: Path, tokenizer: Path) -> None:
    rows = prepared(tmp_path / "rows", tokenizer, TEXTS)

    found = TrainedOn.by([("base", stage(tmp_path / "pretrain", tokenizer, rows))])

    assert [text for rows in found.rows for batch in rows.texts() for text in batch] == TEXTS
    assert found.not_looked_at == []


def test_a_long_document_comes_in_pieces_that_overlap(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_text, "PIECE", 24)
    monkeypatch.setattr(trained_text, "OVERLAP", 8)
    monkeypatch.setattr(trained_text, "BATCH", 40)
    text = " ".join(f"w{number}" for number in range(100))
    rows = prepared(tmp_path / "rows", tokenizer, [text, "x"])
    [found] = TrainedOn.by([("base", stage(tmp_path / "pretrain", tokenizer, rows))]).rows

    *pieces, last = [piece for batch in found.texts() for piece in batch]

    assert last == "x"
    assert all(any(f"w{number} w{number + 1}" in piece for piece in pieces) for number in range(99))


def test_a_mean_by_its_folder_has_seen_the_data_of_all_its_models(tmp_path: Path, tokenizer: Path) -> None:
    rows = {name: prepared(tmp_path / f"{name} rows", tokenizer, TEXTS[:1]) for name in ("sft_a", "sft_b")}
    other = stage(tmp_path / "sft_b", tokenizer, rows["sft_b"], kind="sft")
    mean = stage(tmp_path / "avg", tokenizer, rows["sft_a"], kind="sft", stages={"sft_b": other})
    parts = [Averaged(stage=name, step=1, digest="", weight=0.5) for name in rows]
    finish_training(mean, mean_of=parts)

    found = TrainedOn.by([("avg", mean / "checkpoint" / "step-1")])

    assert [one.folder for one in found.rows] == list(rows.values())
    assert found.not_looked_at == []


def test_the_stages_before_count_and_what_is_not_there_is_named(tmp_path: Path, tokenizer: Path) -> None:
    first = prepared(tmp_path / "first", tokenizer, TEXTS[:1])
    chats = prepared(tmp_path / "chats", tokenizer, TEXTS[1:])
    mixture = tmp_path / "mixture"
    mixture.mkdir()
    members = {"a": str(chats), "b": str(tmp_path / "gone")}
    facts = {"name": "mixed", "kind": "mixture", "mixture": {"members": members}, "fingerprint": "", "documents": 0}
    numbers = {"tokens": 0, "trained_tokens": 0, "bytes": 0, "dtype": "uint16", "vocab_size": 300, "pad_id": 3}
    (mixture / "dataset.json").write_text(json.dumps(facts | numbers))
    night = stage(tmp_path / "pretrain", tokenizer, first)
    later = stage(
        tmp_path / "later" / "pretrain",
        tokenizer,
        config={"data": {"name": "web", "streaming": True}, "checkpoint": {"initial_load_path": str(night / "step-1")}},
    )
    sft = stage(tmp_path / "sft", tokenizer, mixture, base=later, config={"data": {"name": "mixed"}})

    found = TrainedOn.by([("sft", sft / "export"), ("base", later / "export")])

    assert [rows.name for rows in found.rows] == ["chats", "first"]
    assert found.not_looked_at == [
        "mixed of sft: its prepared rows can't be read any more",
        "web of pretrain: it is streamed",
    ]


@pytest.mark.parametrize("model", ["pretrain", "sft"])
def test_what_a_run_published_was_trained_on_what_its_stage_was(tmp_path: Path, tokenizer: Path, model: str) -> None:
    run, rows = tmp_path / "run", {name: prepared(tmp_path / name, tokenizer, TEXTS[:1]) for name in ("web", "chats")}
    pretrain = stage(run / "pretrain", tokenizer, rows["web"])
    stage(run / "sft", tokenizer, rows["chats"], base=pretrain)
    base = stage(run / "publish", None, config={"model": model}) / "model"
    base.mkdir()
    sft = stage(tmp_path / "sft", tokenizer, base=base, config={"training": {"mock_data": True}})

    found = TrainedOn.by([("sft", sft), ("base", base)])

    assert sorted(one.name for one in found.rows) == {"pretrain": ["web"], "sft": ["chats", "web"]}[model]
    assert found.not_looked_at == []


def test_models_of_others_are_named(tmp_path: Path, tokenizer: Path) -> None:
    outside = tmp_path / "outside"
    sft = stage(tmp_path / "sft", tokenizer, base=outside, config={"training": {"mock_data": True}})
    published = stage(tmp_path / "publish", None) / "model"

    found = TrainedOn.by([("sft", sft), ("theirs", published)])

    assert found.rows == []
    assert found.not_looked_at == [
        "the training data of the model that sft began with, which was trained elsewhere",
        "the training data of theirs, which was trained elsewhere",
    ]
