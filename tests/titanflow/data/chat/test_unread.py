from __future__ import annotations

from typing import Any

import pytest

from titanflow.config.keys.training import Data
from titanflow.data.chat.keys import reads
from titanflow.data.chat.unread import unread_lines
from titanflow.data.dataset_info import DatasetInfo


def info(**found: Any) -> DatasetInfo:
    counts = {"documents": 1, "tokens": 1, "trained_tokens": 1, "bytes": 1, "vocab_size": 1, "pad_id": 0}
    return DatasetInfo(kind="chat", name="c", fingerprint="f", dtype="uint16", **counts, **found)


def test_the_log_says_what_nothing_reads_and_what_was_changed() -> None:
    said = info(unread={"id": 3898, "messages[].score": 2}, notes={"the template trims the user's text": 7})
    assert unread_lines(said, Data()) == [
        "c: nothing reads: 3,898 × id, 2 × messages[].score",
        "c: the template trims the user's text (in 7 rows)",
    ]
    assert unread_lines(info(), Data()) == []


def test_a_name_to_leave_out_that_no_row_has_is_said() -> None:
    said = info(unread={"messages[].name (left out)": 2, "id (left out)": 1, "topic": 1})
    lines = unread_lines(said, Data(leave_out=["name", "id", "topics", "reason"]))
    assert lines[1:] == ["c: data.leave_out has no effect: no row has topics, reason"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ m.thinking }}", True),
        ("{{ m['thinking'] }}", True),
        ('{% if "thinking" in m %}', True),
        ("{% if enable_thinking %}{% if thinking %}<thinking>", False),
        ("{{ m.thinking_budget }}", False),
    ],
)
def test_a_template_reads_what_it_asks_a_message_for(template: str, expected: bool) -> None:
    assert reads(template, "thinking") is expected
