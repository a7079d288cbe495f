"""A plan looks at the first rows of each file: a wrong declaration is refused before anything is written."""

import json
from pathlib import Path

import pytest
from own_files import faq, messages, odd_csv, sharegpt, text_parquet, wiki

from titanflow.common.errors import DataError
from titanflow.planning.plan import make_plan

MODEL = "{name: llama3, flavor: debugmodel, dim: 64, n_layers: 2, n_heads: 2, vocab_size: 512}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for write in (faq, messages, odd_csv, sharegpt, text_parquet, wiki):
        write(tmp_path)
    return tmp_path


def refused(folder: Path, text: dict, chats: dict) -> str:
    data = {
        "pretrain": {"model": MODEL, "data": json.dumps(text)},
        "sft": {"data": json.dumps({"kind": "chat", **chats})},
    }
    lines = [
        f"  {stage}:\n    config: {stage}.yaml\n" + "".join(f"    {key}: {value}\n" for key, value in parts.items())
        for stage, parts in data.items()
    ]
    overrides = "    overrides: {training: {seq_len: 64, mixed_precision_param: float32}}\n"
    (folder / "my.yaml").write_text("modules:\n" + "".join(line + overrides for line in lines), encoding="utf-8")
    try:
        make_plan("my")
    except DataError as error:
        return str(error)
    finally:
        assert not (folder / "runs").exists()
    return ""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"path": "odd.csv"}, ["pretrain.data.text_column", "my.yaml:5", "it has: Id, Titel, Der Aufsatz"]),
        ({"path": "pages.parquet", "text_column": "body"}, ["no column 'body'; it has: url, content"]),
        ({"path": "messages.jsonl"}, ["no column 'text'", "set data.kind: chat"]),
        ({"path": "odd.csv", "text_column": "Der Aufsatz"}, []),
        ({"path": "wiki.txt"}, []),
    ],
)
def test_text(folder: Path, data: dict, expected: list[str]) -> None:
    message = refused(folder, data, {"path": "messages.jsonl"})
    assert bool(message) == bool(expected)
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"path": "chats.json"}, ["no column 'messages'; the row has: conversations", "sft.data.columns", "my.yaml:9"]),
        ({"path": "wiki.txt"}, ["wiki.txt is plain text", "sft.data.path"]),
        ({"path": "faq.csv", "chat_format": "prompt_completion"}, ["no column 'prompt'"]),
        ({"path": "chats.json", "chat_format": "sharegpt"}, []),
    ],
)
def test_conversations(folder: Path, data: dict, expected: list[str]) -> None:
    message = refused(folder, {"path": "wiki.txt"}, data)
    assert bool(message) == bool(expected)
    for part in expected:
        assert part in message


def test_rows_after_the_first_are_the_preparation_s(folder: Path) -> None:
    (folder / "late.jsonl").write_text('{"text": "words"}\n{"body": 1}\n' * 40, encoding="utf-8")
    assert refused(folder, {"path": "late.jsonl"}, {"path": "messages.jsonl"}) == ""
