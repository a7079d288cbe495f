from __future__ import annotations

from typing import Any

import pytest

from titanflow.data.chat.check import chat_problems

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}

BAD: dict[str, tuple[Any, str]] = {
    "role": ([USER, {"role": "asistant", "content": "x"}], "a.jsonl:3: messages[1].role: there is no role 'asistant'"),
    "no role": ([USER, {"content": "x"}], "messages[1].role: the message has no role"),
    "no answer": ([USER], "messages: the conversation has no assistant turn"),
    "no messages": ([], "messages: the conversation has no messages"),
    "nothing": (None, "messages isn't a list but nothing"),
    "text": ("Hi", "messages isn't a list but str 'Hi'"),
    "text message": (["Hi", ANSWER], "messages[0]: the message isn't a mapping but str 'Hi'"),
    "no content": ([{"role": "user"}, ANSWER], "messages[0].content: the message has no content"),
    "other keys": (
        [{"from": "human", "value": "Hi", "role": None}, ANSWER],
        "messages[0]: the message has neither role nor content; it has: from, value",
    ),
    "content parts": ([{"role": "user", "content": [{"type": "text"}]}, ANSWER], "content is list"),
    "number": ([USER, {"role": "assistant", "content": 3}], "messages[1].content: content is int"),
    "null content": ([USER, {"role": "assistant", "content": None}], "messages[1].content: the message has no content"),
    "a user's call": (
        [{**CALL, "role": "user"}, ANSWER],
        "messages[0].content: the message has no content",
    ),
    "half a character": (
        [USER, {"role": "assistant", "content": "ab\ud83d"}],
        "messages[1].content: half a character (a lone surrogate) at position 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_each_mistake_says_where_and_what(name: str) -> None:
    messages, expected = BAD[name]
    problems = chat_problems(messages, "a.jsonl:3")
    assert len(problems) == 1
    assert expected in str(problems[0])
    assert str(problems[0]).startswith("a.jsonl:3: messages")


def test_an_unknown_role_lists_the_known() -> None:
    (problem,) = chat_problems([{"role": "human", "content": "Hi"}, ANSWER], "a.jsonl:1")
    assert problem.expected == "one of system, user, assistant, tool"


def test_every_mistake_of_a_conversation_is_reported() -> None:
    messages = [{"role": "bot", "content": 1}, {"role": "assistant", "content": 2}]
    keys = [problem.key for problem in chat_problems(messages, "a.jsonl:1")]
    assert keys == ["messages[0].role", "messages[0].content", "messages[1].content"]


def test_good_conversations_pass() -> None:
    assert chat_problems([USER, ANSWER], "") == []
    assert chat_problems([{"role": "system", "content": ""}, USER, ANSWER, USER], "") == []
    assert chat_problems([USER, CALL, {"role": "tool", "content": "42"}, ANSWER]) == []
    assert chat_problems([USER, {"role": "assistant", "content": ""}]) == []
    assert chat_problems([USER, {"role": "assistant", "content": "", "reasoning_content": "Well."}]) == []
    assert chat_problems([USER, {**ANSWER, "train": False}]) == []
