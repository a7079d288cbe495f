"""A key that stands twice in a row has two values; none of them is taken."""

import json
from pathlib import Path
from typing import Any

import pytest

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.training import Data
from titanflow.data.chat.calls import parsed
from titanflow.data.chat.layout import Unreadable
from titanflow.data.chat.source import load_chats, read_rows
from titanflow.data.files.json_rows import JsonFault, parsed_json
from titanflow.data.files.text_source import load_text
from titanflow.data.held_out.eval_items import check_items
from titanflow.data.parts.work import Work


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": {"c": 1, "d": 2, "c": 1}}', "^the key 'c' stands twice$"),
        ('[{"a": 1}, {"a": 1, "a": 1}]', "^the key 'a' stands twice$"),
        ('{"a" 1}', r"^not JSON: Expecting ':' delimiter \(column 6\)$"),
        ("9" * 5000, "^not JSON: Exceeds the limit"),
        ("[" * 100_000, "^not JSON: maximum recursion"),
    ],
)
def test_what_has_no_one_value_is_refused(text: str, says: str) -> None:
    with pytest.raises(JsonFault, match=says):
        parsed_json(text)


@pytest.mark.parametrize("value", ['{"a": {"a": [{"a": 1}, {"a": 2}]}}', "{}", "3", '"a"', "null"])
def test_other_values_are_read(value: str) -> None:
    assert parsed_json(value) == json.loads(value)


def test_a_document_with_two_texts_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "One document. "}\n{"text": "Another. ", "text": "And a third. "}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: data\.path: the key 'text' stands twice"):
        load_text(Data(path=str(path)), Work(1, tmp_path / "cache"))


def test_a_message_with_two_contents_is_unreadable(tmp_path: Path) -> None:
    turn = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes", "content": "No"}]}'
    fine = turn.replace('"content": "No"', '"name": "x"')
    path = tmp_path / "a.jsonl"
    path.write_text(f"{fine}\n{turn}\n")
    source = load_chats(Data(path=str(path), name="c"), Work(1, tmp_path / "cache"))
    _, second = read_rows(source.rows)
    assert isinstance(second, Unreadable)
    assert second.reason == "the key 'content' stands twice"


def test_an_item_with_two_answers_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": 1, "gold": 0}\n{"q": 2, "gold": 0, "gold": 1}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: data\.path: the key 'gold' stands twice"):
        check_items(Data(kind="evals", path=str(path)))


def test_arguments_with_a_name_twice_are_a_problem() -> None:
    problems: list[Problem] = []
    found: Any = parsed('{"city": "Köln", "city": "Bonn"}', "arguments", problems)
    assert found is None
    assert "the key 'city' stands twice" in str(problems[0])
