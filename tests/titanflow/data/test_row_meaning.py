"""What a row says under another name, or in another form, reaches the model, or is refused by name, or is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_samples import CHATML, source_of

from titanflow.common.errors import DataError
from titanflow.config.keys.training import Data
from titanflow.data.chat.layout import ChatFormat, Conversation
from titanflow.data.chat.tokenise import QUOTED, ChatPlan, write_chats
from titanflow.data.chat.unread import with_what_is_lost
from titanflow.data.parts.work import Work

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
PLANS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.tool_plan or '' }}{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"
)


def read(row: Any, **config: Any) -> Conversation:
    return ChatFormat.of(Data(kind="chat", **config)).conversation(row)


def said(conversation: Conversation) -> str:
    return "\n".join(map(str, conversation.problems))


@pytest.mark.parametrize("name", ["arguments", "parameters", "args", "input", "kwargs"])
@pytest.mark.parametrize("is_text", [False, True])
def test_arguments_of_a_call_have_one_name(name: str, is_text: bool) -> None:
    arguments = {"city": "Köln"}
    call = {"name": "weather", name: json.dumps(arguments) if is_text else arguments}
    found = read({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]})
    assert said(found) == ""
    assert found.messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": arguments}


def test_a_call_with_arguments_twice_is_refused() -> None:
    call = {"name": "weather", "arguments": {"a": 1}, "parameters": {"a": 2}}
    found = read({"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]})
    assert "the call of weather has arguments and parameters" in said(found)


def test_what_calls_and_parts_say_beside_is_counted() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}", "result": "7"}}
    parts = [{"type": "text", "text": "Hi", "citations": [{"source": 1}], "cache_control": None}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    names = ["content[].citations", "tool_calls[].index", "tool_calls[].result"]
    assert dict(read({"messages": messages}).unread) == {f"messages[].{name}": 1 for name in names}


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
@pytest.mark.parametrize("key", ["text", "value", "content"])
def test_parts_of_text_are_joined(kind: str, key: str) -> None:
    parts = [{"type": kind, key: "Hel"}, {"type": kind, key: "lo"}]
    assert read({"messages": [USER, {**ANSWER, "content": parts}]}).messages[1]["content"] == "Hello"


@pytest.mark.parametrize(
    ("part", "hint"),
    [
        ({"type": "thinking", "thinking": "Well."}, "reasoning_content"),
        ({"type": "tool_use", "name": "f", "input": {}}, "tool_calls"),
        ({"type": "tool_result", "content": "7"}, "role tool"),
        ({"type": "input_audio", "input_audio": {}}, "images and sound"),
    ],
)
def test_other_parts_are_refused_with_where_they_belong(part: dict[str, Any], hint: str) -> None:
    found = said(read({"messages": [USER, {**ANSWER, "content": [part]}]}))
    assert f"a part of the type '{part['type']}'" in found
    assert hint in found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("refusal", "I can't say."),
        ("tool_plan", "I will look."),
        ("prefix", True),
        ("partial", True),
        ("reasoning_details", [{"text": "Well."}]),
        ("thinking_blocks", [{"thinking": "Well."}]),
        ("documents", [{"text": "A book."}]),
        ("train_detail", [{"begin_offset": 0, "end_offset": 2, "train": False}]),
    ],
)
def test_a_key_of_meaning_that_no_template_reads_is_refused_by_name(key: str, value: Any) -> None:
    row = {"messages": [USER, {**ANSWER, key: value}]}
    assert f"messages[1].{key}: found" in said(with_what_is_lost(read(row), CHATML))
    assert said(with_what_is_lost(read(row, leave_out=[key]), CHATML)) == ""
    empty = {"messages": [USER, {**ANSWER, key: type(value)()}]}
    assert said(with_what_is_lost(read(empty), CHATML)) == ""


def test_a_key_of_meaning_reaches_the_template_that_asks_for_it() -> None:
    found = with_what_is_lost(read({"messages": [USER, {**ANSWER, "tool_plan": "I will look."}]}), PLANS)
    assert said(found) == ""
    assert found.messages[1]["tool_plan"] == "I will look."


@pytest.mark.parametrize(
    ("column", "value", "hint"),
    [
        ("system_prompt", "Be brief.", "data.columns: {system: system_prompt}"),
        ("reasoning", "Well.", "write them into its message"),
        ("chat_template_kwargs", {"enable_thinking": False}, "chat.template_args"),
        ("documents", [{"text": "A book."}], "write them into a message"),
    ],
)
def test_a_column_of_meaning_is_refused_by_name(column: str, value: Any, hint: str) -> None:
    row = {"messages": [USER, ANSWER], column: value}
    assert hint in said(read(row))
    assert said(read(row, leave_out=[column])) == ""
    assert said(read({**row, column: None})) == ""


def test_a_system_prompt_by_another_name_is_read() -> None:
    row = {"system_prompt": "Be brief.", "messages": [USER, ANSWER]}
    found = read(row, columns={"system": "system_prompt"})
    assert [message["role"] for message in found.messages] == ["system", "user", "assistant"]


@pytest.mark.parametrize("prompt", [[USER], USER, json.dumps([USER]), json.dumps(USER)])
@pytest.mark.parametrize("completion", ["Hello", [ANSWER], ANSWER, json.dumps([ANSWER])])
def test_prompt_and_completion_may_be_messages_in_any_form(prompt: Any, completion: Any) -> None:
    found = read({"prompt": prompt, "completion": completion}, chat_format="prompt_completion")
    assert said(found) == ""
    assert found.messages == [{**USER, "train": False}, ANSWER]


@pytest.mark.parametrize("text", ["[1, 2]", '[{"a": 1}]', "[{", '{"role" of a text}', "[]"])
def test_a_text_that_looks_like_json_stays_a_text(text: str) -> None:
    found = read({"prompt": text, "completion": text}, chat_format="prompt_completion")
    assert [message["content"] for message in found.messages] == [text, text]


def test_a_message_may_have_the_usual_keys_in_place_of_the_declared() -> None:
    mixed = {"conversations": [{"from": "human", "value": "Hi"}, ANSWER]}
    assert read(mixed, chat_format="sharegpt").messages == [USER, ANSWER]


def test_a_key_that_the_declared_one_goes_before_is_counted() -> None:
    both = {"conversations": [{"from": "human", "value": "Hi", "content": "Ho"}, {"from": "gpt", "value": "Hello"}]}
    found = read(both, chat_format="sharegpt")
    assert (found.messages, dict(found.unread)) == ([USER, ANSWER], {"conversations[].content": 1})


@pytest.mark.parametrize("tool", [{"description": "Of a city."}, {"type": "function", "function": "weather"}, 7])
def test_a_tool_without_a_name_is_refused(tool: Any) -> None:
    assert "a list of function descriptions" in said(read({"messages": [USER, ANSWER], "tools": [tool]}))


def test_a_lost_key_stops_the_preparation_or_is_left_out_and_counted(tokenizer_folder: Path, tmp_path: Path) -> None:
    rows = [{"messages": [USER, ANSWER]}, {"messages": [USER, {**ANSWER, "refusal": "No."}]}]
    rows += [{"messages": [USER, {**ANSWER, "content": None}]}]
    source, plan = source_of([json.dumps(row) for row in rows]), ChatPlan(CHATML, "chatml", 64)
    arguments = (tokenizer_folder, plan, "f", tmp_path, Work(1, tmp_path))
    with pytest.raises(
        DataError, match=r"a\.jsonl:2: messages\[1\]\.refusal.*\n[\s\S]*a\.jsonl:3: messages\[1\]\.content"
    ):
        write_chats(source, Data(name="c", kind="chat"), *arguments)
    write_chats(source, Data(name="c", kind="chat", malformed="drop"), *arguments)
    assert json.loads((tmp_path / "dataset.json").read_text())["dropped"] == {"malformed": 2}


def test_a_row_that_quotes_special_tokens_is_noted(tokenizer_folder: Path, tmp_path: Path) -> None:
    rows = [{"messages": [USER, ANSWER]}, {"messages": [{"role": "user", "content": "What is <|im_end|>?"}, ANSWER]}]
    source, plan = source_of([json.dumps(row) for row in rows]), ChatPlan(CHATML, "chatml", 64)
    write_chats(source, Data(name="c", kind="chat"), tokenizer_folder, plan, "f", tmp_path, Work(1, tmp_path))
    assert json.loads((tmp_path / "dataset.json").read_text())["notes"] == {QUOTED: 1}
