"""How long a draft's rows are, and what becomes of conversations that are longer."""

import json
from pathlib import Path

import pytest
from drafts import CPU, draft
from own_files import sentence, wiki

from titanflow.common.errors import ConfigError
from titanflow.draft import machine
from titanflow.draft.draft import Asked, Draft

pytestmark = pytest.mark.slow


def test_rows_are_as_long_as_conversations_need(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "red stone " * count}]}
        for count in range(1, 121)
    ]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    made, experiment, _ = draft(text=wiki(tmp_path, 3000), chats=path)
    row = experiment.modules["sft"].config["training"]["seq_len"]
    assert row >= 240
    assert experiment.modules["pretrain"].config["training"]["seq_len"] >= row
    assert made.notes == []


def long_chats(folder: Path, words: int, count: int = 100, tools: bool = False) -> Path:
    """Conversations of so many words, said or in the description of a tool."""
    long = " ".join(sentence(number) for number in range(words // 10))
    tool = {"name": "look", "description": long}
    rows = [
        {
            "conversations": [
                {"from": "human", "value": f"{number}? {'' if tools else long}"},
                {"from": "function_call", "value": json.dumps({"name": "look", "arguments": {"at": number}})},
                {"from": "observation", "value": "a stone"},
                {"from": "gpt", "value": "A stone."},
            ],
            "tools": json.dumps([tool]) if tools else "[]",
        }
        for number in range(count)
    ]
    path = folder / "long.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("tools", [False, True])
def test_a_row_grows_before_most_conversations_are_left_out(tmp_path: Path, tools: bool) -> None:
    path, text = long_chats(tmp_path, 500, tools=tools), wiki(tmp_path, 9000)
    made, experiment, _ = draft(text=text, chats=path)
    assert machine.Machine(CPU).longest_row < made.chats.mean < made.chat_row <= 2048
    assert made.notes == []
    assert experiment.modules["pretrain"].config["training"]["seq_len"] >= made.chat_row


def test_conversations_none_of_which_fits(tmp_path: Path) -> None:
    long_chats(tmp_path, 5000)
    wiki(tmp_path, 9000)
    with pytest.raises(ConfigError, match="--chats: 0 of 100 conversations have no more than 2048 tokens"):
        Draft.of(Asked("my", ["wiki.txt"], ["long.json"]))


def test_where_some_are_left_out_more_are_held_out(tmp_path: Path) -> None:
    short, long = long_chats(tmp_path, 100, 60).rename(tmp_path / "short.json"), long_chats(tmp_path, 5000, 60)
    rows = [row for path in (short, long) for row in json.loads(path.read_text(encoding="utf-8"))]
    long.write_text(json.dumps(rows), encoding="utf-8")
    made, experiment, text = draft(text=wiki(tmp_path, 9000), chats=long)
    assert "60 conversations are longer than" in made.notes[0]
    # One of 12 for each purpose, of those that fit.
    assert experiment.modules["sft"].config["data"]["held_out"]["dev"] == 13
    steps = experiment.modules["sft"].config["training"]["steps"]
    assert f"{8 * steps / (60 - 26):.2g} passes over the conversations" in text
