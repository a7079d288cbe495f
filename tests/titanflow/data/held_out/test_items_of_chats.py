"""Held-out conversations as items: whatever their layout, one task asks about them."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from datasets import Dataset

from titanflow.config.files.tree import SHIPPED
from titanflow.config.keys.training import Data
from titanflow.data.chat.source import load_chats
from titanflow.data.held_out.held_out_items import write_held_out_items
from titanflow.data.parts.work import Work

TURNS = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A stone."}]
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "messages": ({}, {"id": 1, "messages": TURNS}),
    "sharegpt": (
        {"chat_format": "sharegpt"},
        {"conversations": [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A stone."}]},
    ),
    "other names": (
        {"columns": {"messages": "talk", "role": "who", "content": "says"}, "roles": {"bot": "assistant"}},
        {"talk": [{"who": "user", "says": "What is it?"}, {"who": "bot", "says": "A stone."}]},
    ),
    "pairs": (
        {"chat_format": "prompt_completion", "columns": {"prompt": "asked", "completion": "said"}},
        {"asked": "What is it?", "said": "A stone."},
    ),
    "text of messages": ({}, {"messages": json.dumps(TURNS)}),
}


@pytest.fixture(scope="module")
def task() -> ModuleType:
    """The functions of the task held_out_chats, as lm-eval imports them."""
    spec = importlib.util.spec_from_file_location("held_out_chats", SHIPPED / "evals" / "held_out_chats.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ROWS)
def test_an_item_has_its_row_s_columns_and_its_turns(name: str, tmp_path: Path, task: ModuleType) -> None:
    declared, row = ROWS[name]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    data = Data(name="rows", kind="chat", path=str(path), part="test", **declared)
    write_held_out_items(load_chats(data, Work(None, tmp_path)), data, "0", tmp_path)
    item = json.loads((tmp_path / "items.jsonl").read_text(encoding="utf-8"))
    assert item == {**row, "messages": TURNS}
    (asked,) = task.first_exchanges(Dataset.from_list([item]))
    assert asked == {"question": "What is it?", "answer": "A stone."}


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")], ("a", "b")),
        ([("assistant", "Hello!"), ("user", "a"), ("assistant", "b")], ("a", "b")),
        ([("user", "a"), ("assistant", ""), ("tool", "7"), ("assistant", "b")], None),
        ([("assistant", "Hello!")], None),
        ([("user", "a")], None),
    ],
)
def test_the_first_question_and_the_answer_to_it(
    task: ModuleType, turns: list[tuple[str, str]], expected: tuple[str, str] | None
) -> None:
    whole = [("user", "x"), ("assistant", "y")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in one]} for one in (turns, whole)]
    found = [(one["question"], one["answer"]) for one in task.first_exchanges(rows)]
    assert found == ([expected] if expected else []) + [("x", "y")]


@pytest.mark.parametrize(
    ("written", "answer", "score"),
    [
        ("A stone.", "A stone.", 1),
        (" A stone.\n", "A stone.", 1),
        ("<think>\nA bird?\n</think>\n\nA stone.", "A stone.", 1),
        ("A stone.", "<think>It lies there.</think>A stone.", 1),
        ("<think>A stone.</think>A bird.", "A stone.", 0),
        ("<think>\nA stone.", "A stone.", 0),
    ],
)
def test_an_answer_is_what_is_written_behind_the_thoughts(
    task: ModuleType, written: str, answer: str, score: int
) -> None:
    assert task.score_written({"question": "?", "answer": answer}, [written]) == {"exact_match": score}


def test_an_answer_s_bits_and_whether_it_would_be_given(task: ModuleType) -> None:
    scored = task.score({"answer": "Äh."}, [(-2.5, True)])
    assert scored == {"bits_per_byte": (-2.5, 4), "acc": 1}
