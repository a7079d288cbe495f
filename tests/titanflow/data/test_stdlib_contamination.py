"""The default experiment evaluates on nothing that it trains on, and would notice if it did."""

import json
from pathlib import Path
from typing import Any

import pytest

from titanflow.data.held_out.leaked_items import Item, LeakSearch
from titanflow.data.stdlib import chats as stdlib_chats
from titanflow.data.stdlib import evals
from titanflow.data.stdlib.text import documents

pytestmark = pytest.mark.slow


def item(row: dict[str, Any]) -> Item:
    if "text" in row:
        return Item((row["text"],))
    return Item((row["question"],), (row["choices"][row["answer"]] if "choices" in row else row["answer"],))


def test_no_item_was_trained_on_and_planted_ones_are_found(tmp_path: Path) -> None:
    evals.write_items(tmp_path, "test")
    rows = {path.stem: [json.loads(line) for line in path.open()] for path in sorted(tmp_path.glob("*.jsonl"))}
    tasks = {name: [item(row) for row in found] for name, found in rows.items()}
    chats = ("\n".join(turn["content"] for turn in turns) for turns in stdlib_chats.chats("train"))
    trained = [*(text for text, _ in documents("train")), *chats]

    search = LeakSearch(tasks)
    search.read(trained)
    assert {name: (task.leaked, task.shared) for name, task in search.leaked.items()} == dict.fromkeys(tasks, ([], 0))

    search.read("\n".join([*one.questions, *one.answers]).upper() for items in tasks.values() for one in items)
    assert {name: len(task.leaked) for name, task in search.leaked.items()} == {n: len(i) for n, i in tasks.items()}
