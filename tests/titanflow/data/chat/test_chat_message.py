"""What a message or a row says beside role and content is understood, refused by name, or counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chat_samples import CHATML, spoken

from titanflow.config.keys.training import Data
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import ChatFormat, Conversation
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
FUNCTION = {"name": "weather", "arguments": {"city": "Köln"}}
AS_TEXT = {"name": "weather", "arguments": json.dumps(FUNCTION["arguments"])}
CALL = {"type": "function", "function": FUNCTION}
UNTRAINED = {**ANSWER, "train": False}


def read(row: Any, **config: Any) -> Conversation:
    return ChatFormat.of(Data(kind="chat", **config)).conversation(row)


def answer(message: dict[str, Any], **config: Any) -> dict[str, Any]:
    """An assistant's message as it is read, without a problem."""
    found = read({"messages": [USER, {**ANSWER, **message}]}, **config)
    assert [str(problem) for problem in found.problems] == []
    return found.messages[1]


def problem(row: dict[str, Any], **config: Any) -> str:
    (found,) = read(row, **config).problems
    return str(found)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "thoughts", "thought"])
def test_thoughts_have_one_name(name: str) -> None:
    assert answer({name: "Hm"}) == {**ANSWER, "reasoning_content": "Hm"}
    assert answer({name: None}) == answer({name: " "}) == ANSWER
    assert answer({name: "Hm", "reasoning": "Hm"}) == {**ANSWER, "reasoning_content": "Hm"}
    said = problem({"messages": [USER, {**ANSWER, name: ["Hm"]}]})
    assert said.startswith(f"messages[1].{name}: found ['Hm']\n    expected: text")


def test_only_an_assistant_thinks() -> None:
    row = {"messages": [{**USER, "reasoning_content": {"a": 1}}, {**ANSWER, "thought": "Hm"}]}
    found = read(row)
    assert (found.problems, found.unread) == ([], {"messages[].reasoning_content": 1})


def test_thoughts_that_differ_are_refused() -> None:
    said = problem({"messages": [USER, {**ANSWER, "reasoning": "Hm", "thinking": "Ho"}]})
    assert said.startswith("messages[1]: reasoning and thinking say different things")


@pytest.mark.parametrize("layout", ["alpaca", "prompt_completion"])
def test_a_column_of_thoughts_belongs_to_the_answer(layout: Any) -> None:
    row = {"instruction": "Hi", "output": "Hello", "prompt": "Hi", "completion": "Hello", "reasoning": "Hm"}
    assert read(row, chat_format=layout).messages == [USER, {**ANSWER, "reasoning_content": "Hm"}]


@pytest.mark.parametrize("name", ["function_call", "tool_call", "function_calls", "tool_calls"])
@pytest.mark.parametrize("value", [AS_TEXT, FUNCTION, [CALL], json.dumps(FUNCTION)])
def test_a_call_is_one_by_any_name(name: str, value: Any) -> None:
    row = {"messages": [USER, {"role": "assistant", "content": None, name: value}]}
    found = read(row)
    assert found.problems == []
    assert found.messages[1] == {"role": "assistant", "content": None, "tool_calls": [CALL]}


@pytest.mark.parametrize("name", ["function_call", "tool_calls"])
def test_no_call_is_none(name: str) -> None:
    for nothing in (None, "", [], {}):
        assert not answer({name: nothing}).get("tool_calls")
    row = {"messages": [USER, {"role": "assistant", "content": None, name: None}]}
    assert problem(row).startswith("messages[1].content: the message has no content")


def test_openais_older_call_is_trained(tokenizer: LoadedTokenizer) -> None:
    older = {"role": "assistant", "content": None, "function_call": AS_TEXT}
    result = {"role": "function", "name": "weather", "content": "sun"}
    row = {"messages": [USER, older, result, ANSWER], "functions": [{"name": "weather"}]}
    found = read(row, roles={"function": "tool"})
    said = spoken(ChatEncoder(tokenizer, CHATML), found)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>'
    assert (found.problems, said) == ([], [call, "Hello<|im_end|>"])


def test_calls_by_two_names_are_refused() -> None:
    both = {**ANSWER, "tool_calls": [CALL], "function_call": FUNCTION}
    assert problem({"messages": [USER, both]}).startswith("messages[1]: found tool_calls and function_call")


def test_a_call_that_is_no_json_names_its_key() -> None:
    row = {"messages": [USER, {**ANSWER, "function_call": "weather()"}]}
    assert problem(row).startswith("messages[1].function_call: found 'weather()', not JSON")


def test_functions_are_tools() -> None:
    row = {"messages": [USER, ANSWER], "functions": [{"name": "weather"}]}
    assert read(row).tools == [{"type": "function", "function": {"name": "weather"}}]
    assert problem({**row, "tools": [{"name": "now"}]}).startswith("tools: the row has tools and functions")


MARKS = ["train", "training", "trainable", "train_mask", "weight", "loss_weight", "loss", "loss_mask"]


@pytest.mark.parametrize("name", MARKS)
def test_a_mark_says_whether_a_turn_is_trained(name: str) -> None:
    for no in (False, 0, 0.0, "false", "0"):
        assert answer({name: no}) == UNTRAINED, no
    for yes in (True, 1, 1.0, "True", "1", None, ""):
        assert answer({name: yes}) == ANSWER, yes
    for neither in (0.5, 2, -1, "no", [1, 0]):
        said = problem({"messages": [USER, {**ANSWER, name: neither}]})
        assert said.startswith(f"messages[1].{name}: found {neither!r}\n    expected: true or false, 1 or 0"), said
        assert answer({name: neither}, leave_out=[name]) == ANSWER


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize("layout", ["messages", "sharegpt", "alpaca", "prompt_completion"])
def test_a_column_says_whether_a_row_is_trained(name: str, layout: Any) -> None:
    row = {
        **{"messages": [USER, ANSWER], "prompt": "Hi", "completion": "Hello", "instruction": "Hi", "output": "Hello"},
        **{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    }
    assert read({**row, name: 0}, chat_format=layout).messages[1] == UNTRAINED
    assert read({**row, name: 1}, chat_format=layout).messages[1] == ANSWER
    assert problem({**row, name: 0.5}, chat_format=layout).startswith(f"{name}: found 0.5")


def test_to_train_what_is_never_trained_is_counted() -> None:
    row = {"messages": [{**USER, "train": True}, {**ANSWER, "train": True}]}
    found = read(row)
    assert (found.messages, found.unread) == ([USER, ANSWER], {"messages[].train of the user": 1})


def test_marks_that_contradict_are_refused() -> None:
    said = problem({"messages": [USER, {**ANSWER, "weight": 0, "train": True}]})
    assert said.startswith("messages[1]: found train: True and weight: 0")


def test_a_mark_that_means_two_things_is_refused_until_it_is_declared() -> None:
    masked = {"messages": [USER, {**ANSWER, "mask": 0}]}
    assert "messages[1].mask: found 0: some tools mark the trained turns so, others the untrained ones" in problem(
        masked
    )
    assert "data.columns: {train: mask} reads 1 as trained" in problem(masked)
    assert read(masked, columns={"train": "mask"}).messages[1] == UNTRAINED
    assert read(masked, leave_out=["mask"]).messages[1] == ANSWER
    assert read({"messages": [USER, ANSWER], "mask": 0}, columns={"train": "mask"}).messages[1] == UNTRAINED


@pytest.mark.parametrize("name", ["text", "value", "content"])
def test_parts_of_text_are_joined(name: str) -> None:
    parts = [{"type": "text", name: "Hel"}, {"type": "text", name: "lo"}]
    assert answer({"content": parts}) == ANSWER


PARTS = {
    "image_url": {"type": "image_url", "image_url": {"url": "x"}},
    "input_audio": {"type": "input_audio", "input_audio": {"data": "x"}},
    "thinking": {"type": "thinking", "thinking": "Hm"},
    "text": {"type": "text"},
}


@pytest.mark.parametrize("kind", PARTS)
def test_other_parts_are_refused_by_name(kind: str) -> None:
    row = {"messages": [{**USER, "content": [{"type": "text", "text": "Hi"}, PARTS[kind]]}, ANSWER]}
    assert problem(row).startswith(f"messages[0].content[1]: a part of the type '{kind}'")


@pytest.mark.parametrize("name", ["image", "images", "audio", "videos"])
def test_images_and_sound_are_refused_by_name(name: str) -> None:
    row = {"messages": [USER, ANSWER], name: ["x.png"]}
    assert problem(row).startswith(f"{name}: found ['x.png'], and text alone is trained on")
    assert read({**row, name: []}).problems == read(row, leave_out=[name]).problems == []
    assert problem({"messages": [{**USER, name: ["x.png"]}, ANSWER]}).startswith(f"messages[0].{name}: found")


def test_what_nothing_understands_is_counted() -> None:
    row = {"messages": [{**USER, "score": 3}, {**ANSWER, "score": None, "name": "Ann"}], "id": 7, "source": ""}
    assert read(row).unread == {"messages[].score": 1, "id": 1}
    assert read(row, leave_out=["id", "score"]).unread == {"messages[].score (left out)": 1, "id (left out)": 1}
    shared = {"conversations": [{"from": "human", "value": "Hi", "x": 1}, {"from": "gpt", "value": "Yo", "x": 1}]}
    assert read(shared, chat_format="sharegpt").unread == {"conversations[].x": 2}


@pytest.mark.parametrize(
    ("role", "meant"),
    [
        *[("chatgpt", "assistant"), ("function", "tool"), ("ipython", "tool"), ("User", "user")],
        *[("human", "user"), ("tool_call", "function_call")],
    ],
)
def test_an_unknown_role_says_the_line_to_write(role: str, meant: str) -> None:
    row = {"messages": [USER, {"role": role, "content": "Hi"}, ANSWER]}
    assert f"data.roles: {{{role}: {meant}}}" in problem(row)
    if meant != "function_call":
        assert read(row, roles={role: meant}).problems == []


def test_a_role_of_which_nothing_is_known_names_the_key() -> None:
    row = {"messages": [USER, {"role": "narrator", "content": "Hi"}, ANSWER]}
    assert "data.roles gives it one of them, as in {narrator: user}" in problem(row)
    shared = {"conversations": [{"from": "developer", "value": "S"}, {"from": "gpt", "value": "Yo"}]}
    assert "data.roles: {developer: system}" in problem(shared, chat_format="sharegpt")
