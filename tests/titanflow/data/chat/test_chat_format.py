from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from titanflow.common.errors import DataError
from titanflow.config.keys.chat_columns import check_declaration
from titanflow.config.keys.training import Data
from titanflow.data import prepare as stage
from titanflow.data.chat.layout import ChatFormat, Conversation, Unreadable
from titanflow.data.prepared import PreparedRows
from titanflow.data.tokenizer.tokenizer import load_tokenizer
from titanflow.runs.contract import StageRun

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
ARGUMENTS = {"city": "Köln", "days": 2}
FUNCTION = {"name": "weather", "arguments": ARGUMENTS}
CALL = {"type": "function", "function": FUNCTION}
TOOL = {"name": "weather", "description": "Of a city.", "parameters": {"type": "object", "properties": {}}}
WRAPPED = {"type": "function", "function": TOOL}


def read(row: Any, **config: Any) -> Conversation:
    return ChatFormat.of(Data(kind="chat", **config)).conversation(row)


def good(row: Any, **config: Any) -> list[dict[str, Any]]:
    """The messages of a row that has no problem."""
    found = read(row, **config)
    assert [str(problem) for problem in found.problems] == []
    return found.messages


def problem(row: Any, **config: Any) -> str:
    """The one problem of a row."""
    problems = read(row, **config).problems
    assert len(problems) == 1, [str(one) for one in problems]
    return str(problems[0])


def test_messages_are_taken_as_they_are() -> None:
    row = {"messages": [{"role": "system", "content": "S"}, USER, ANSWER, USER, ANSWER, ANSWER], "id": 7}
    assert good(row) == row["messages"]
    assert read(row).tools is None


def test_columns_roles_and_keys_may_have_other_names() -> None:
    row = {"chat": [{"speaker": "person", "said": "Hi"}, {"speaker": "bot", "said": "Hello"}]}
    columns = {"messages": "chat", "role": "speaker", "content": "said"}
    assert good(row, columns=columns, roles={"person": "user", "bot": "assistant"}) == [USER, ANSWER]


def test_a_developer_is_a_system() -> None:
    assert good({"messages": [{"role": "developer", "content": "S"}, USER, ANSWER]})[0]["role"] == "system"


def test_a_system_column_goes_before_the_messages() -> None:
    row = {"messages": [USER, ANSWER], "system": "Be brief.", "rules": "Be kind."}
    assert good(row)[0] == {"role": "system", "content": "Be brief."}
    assert good(row, columns={"system": "rules"})[0] == {"role": "system", "content": "Be kind."}
    assert good({**row, "system": ""}) == good({**row, "system": None}) == [USER, ANSWER]


def test_messages_may_be_json_in_a_text_column() -> None:
    assert good({"messages": json.dumps([USER, ANSWER])}) == [USER, ANSWER]


SPELLINGS = {
    "mapping": [CALL],
    "arguments as text": [{"type": "function", "function": {**FUNCTION, "arguments": json.dumps(ARGUMENTS)}}],
    "bare function": [FUNCTION],
    "one bare function": FUNCTION,
    "all as text": json.dumps([CALL]),
    "function as text": [{"function": json.dumps(FUNCTION)}],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_tool_calls_come_out_with_their_arguments_as_a_mapping(spelling: str) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": SPELLINGS[spelling]}
    (_, read_message, _, _) = good({"messages": [USER, message, {"role": "tool", "content": "sun"}, ANSWER]})
    assert read_message["tool_calls"] == [CALL]


def test_a_calls_id_is_kept_and_no_arguments_are_an_empty_mapping() -> None:
    calls = [{"id": "a1", **CALL}, {"function": {"name": "now"}}, {"function": {"name": "now", "arguments": ""}}]
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    found = good({"messages": [USER, message]})[1]["tool_calls"]
    assert [one.get("id") for one in found] == ["a1", None, None]
    assert [one["function"]["arguments"] for one in found] == [ARGUMENTS, {}, {}]


TOOL_SPELLINGS = {
    "list": [WRAPPED],
    "bare": [TOOL],
    "one": TOOL,
    "text": json.dumps([WRAPPED]),
    "bare text": json.dumps([TOOL]),
    "list of texts": [json.dumps(TOOL)],
}


@pytest.mark.parametrize("spelling", TOOL_SPELLINGS)
@pytest.mark.parametrize("layout", ["messages", "sharegpt", "prompt_completion"])
def test_tools_come_out_in_openais_form(spelling: str, layout: Any) -> None:
    row = {
        **{"messages": [USER, ANSWER], "prompt": "Hi", "completion": "Hello"},
        **{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    }
    found = read({**row, "tools": TOOL_SPELLINGS[spelling]}, chat_format=layout)
    assert found.problems == []
    assert found.tools == [WRAPPED]


@pytest.mark.parametrize("empty", [None, "", " ", [], "[]"])
def test_no_tools_are_none(empty: Any) -> None:
    found = read({"messages": [USER, ANSWER], "tools": empty})
    assert (found.tools, found.problems) == (None, [])


@pytest.mark.parametrize(("tools", "said"), [("{", "not JSON"), ([3], "found 3"), (["["], "not JSON")])
def test_tools_that_are_none_are_said(tools: Any, said: str) -> None:
    found = problem({"messages": [USER, ANSWER], "tools": tools})
    assert found.startswith("tools: ")
    assert said in found


@pytest.mark.parametrize("mark", [{"train": False}, {"weight": 0}, {"weight": 0.0}])
def test_a_turn_can_be_left_out_of_the_loss(mark: dict[str, Any]) -> None:
    messages = good({"messages": [USER, {**ANSWER, **mark}, USER, {**ANSWER, "weight": 1, "train": True}]})
    assert messages == [USER, {**ANSWER, "train": False}, USER, ANSWER]


@pytest.mark.parametrize(("mark", "said"), [({"weight": 0.5}, "weight: found 0.5"), ({"train": "no"}, "found 'no'")])
def test_a_mask_that_is_none_is_refused(mark: dict[str, Any], said: str) -> None:
    assert said in problem({"messages": [USER, {**ANSWER, **mark}]})


def test_content_in_parts_is_joined_where_all_are_text() -> None:
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    assert good({"messages": [{"role": "user", "content": parts}, ANSWER]})[0]["content"] == "Hi there"


def test_sharegpt() -> None:
    conversation = [
        {"from": "system", "value": "S"},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Let me look."},
        {"from": "function_call", "value": json.dumps(FUNCTION)},
        {"from": "observation", "value": "sun"},
        {"from": "gpt", "value": "Sun."},
    ]
    found = good({"conversations": conversation}, chat_format="sharegpt")
    assert [one["role"] for one in found] == ["system", "user", "assistant", "assistant", "tool", "assistant"]
    assert found[3] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert [one["content"] for one in found] == ["S", "Hi", "Let me look.", "", "sun", "Sun."]


def test_sharegpt_calls_several_functions_at_once() -> None:
    several = [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": json.dumps([FUNCTION, FUNCTION])}]
    assert good({"conversations": several}, chat_format="sharegpt")[1]["tool_calls"] == [CALL, CALL]


def test_alpaca() -> None:
    row = {"instruction": "Say", "input": "Hi", "output": "Hello", "system": "S", "history": [["Q", "A"]]}
    asked = {"role": "user", "content": "Say\nHi"}
    assert good(row, chat_format="alpaca") == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A"},
        asked,
        ANSWER,
    ]
    assert good({**row, "input": "", "history": [], "system": ""}, chat_format="alpaca")[0]["content"] == "Say"
    assert good({"instruction": "Say", "output": "Hello"}, chat_format="alpaca")[0]["content"] == "Say"
    assert good({**row, "instruction": "", "history": None}, chat_format="alpaca")[1]["content"] == "Hi"


@pytest.mark.parametrize("history", [["Q", "A"], [["Q"]], "QA", [{"Q": "A"}], 3])
def test_a_history_that_is_no_list_of_pairs_is_refused(history: Any) -> None:
    row = {"instruction": "Say", "output": "Hello", "history": history}
    assert "history: a turn of the history isn't a pair" in problem(row, chat_format="alpaca")


def test_prompt_and_completion_as_texts() -> None:
    row = {"question": "Hi", "answer": "Hello", "system": "S"}
    columns = {"prompt": "question", "completion": "answer"}
    expected = [{"role": "system", "content": "S"}, USER, ANSWER]
    assert good(row, chat_format="prompt_completion", columns=columns) == expected


def test_prompt_and_completion_as_messages_train_the_second_only() -> None:
    row = {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}
    messages = good(row, chat_format="prompt_completion")
    assert [one.get("train", True) for one in messages] == [False, False, False, True]
    assert [one["content"] for one in messages] == ["Hi", "Hello", "Hi", "Hello"]


def test_of_prompt_and_completion_either_may_be_a_text_beside_messages() -> None:
    assert good({"prompt": "Hi", "completion": [ANSWER]}, chat_format="prompt_completion") == [USER, ANSWER]
    messages = good({"prompt": [USER, ANSWER, USER], "completion": "Hello"}, chat_format="prompt_completion")
    assert [one.get("train", True) for one in messages] == [False, False, False, True]
    assert messages[-1] == ANSWER


MALFORMED = {
    "no role": ([{"content": "Hi"}, ANSWER], "messages[0].role: the message has no role"),
    "unknown role": ([USER, {**ANSWER, "role": "bot"}], "messages[1].role: there is no role 'bot'"),
    "a role that is a number": ([USER, {**ANSWER, "role": 3}], "messages[1].role: there is no role 3"),
    "null content": ([USER, {**ANSWER, "content": None}], "messages[1].content: the message has no content"),
    "nested lists": ([[USER, ANSWER]], "messages[0]: the message isn't a mapping but list"),
    "nested content": ([USER, {**ANSWER, "content": [["Hello"]]}], "messages[1].content[0]: a part that is list"),
    "a number": (3, "messages: messages isn't a list but int 3"),
    "a mapping": (USER, "messages: messages isn't a list but dict"),
    "nothing": (None, "messages: messages isn't a list but nothing"),
    "empty": ([], "messages: the conversation has no messages"),
    "half a character": ([USER, {**ANSWER, "content": "\ud83d"}], "half a character (a lone surrogate)"),
    "a call that isn't JSON": (
        [USER, {**ANSWER, "tool_calls": [{"function": {"name": "f", "arguments": "{city: Köln}"}}]}],
        "messages[1].tool_calls.arguments: found '{city: Köln}', not JSON",
    ),
    "a call of nothing": (
        [USER, {**ANSWER, "tool_calls": [{"function": {"arguments": {}}}]}],
        "messages[1].tool_calls: found {'function'",
    ),
    "arguments in a list": (
        [USER, {**ANSWER, "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}],
        "messages[1].tool_calls.arguments: found [1]",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_row_says_where_and_what(name: str) -> None:
    messages, said = MALFORMED[name]
    assert said in problem({"messages": messages})


def test_a_sharegpt_call_that_is_not_json_is_said() -> None:
    row = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": "weather()"}]}
    assert "conversations[1].tool_calls: found 'weather()', not JSON" in problem(row, chat_format="sharegpt")


@pytest.mark.parametrize("row", [None, 3, "text", [USER, ANSWER]])
def test_a_row_that_is_no_mapping_is_said(row: Any) -> None:
    assert "the row isn't a mapping" in problem(row)
    assert "not JSON: why" in problem(Unreadable("not JSON: why"))


@pytest.mark.parametrize("value", [5, ["be brief"], {"text": "be brief"}, False])
def test_what_should_be_a_text_is_not_left_out(value: Any) -> None:
    said = f"found {value!r}, which is {type(value).__name__}"
    assert f"system: {said}" in problem({"messages": [USER, ANSWER], "system": value})
    row = {"instruction": "Hi", "input": value, "output": "Hello"}
    assert f"input: {said}" in problem(row, chat_format="alpaca")


def test_json_of_too_many_levels_is_said() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert "not JSON" in problem({"messages": deep})
    assert "not JSON" in problem({"messages": [USER, ANSWER], "tools": deep})


@pytest.mark.parametrize("first", [{}, {"content": "no", "role": "system"}])
def test_a_declared_key_goes_before_one_of_its_meaning(first: dict[str, Any]) -> None:
    said = [{**first, "from": "human", "value": "Hi", "content": "no"}, {"from": "gpt", "value": "Hello"}]
    messages = ChatFormat.of(Data(kind="chat", chat_format="sharegpt")).conversation({"conversations": said}).messages
    assert messages == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_a_missing_column_names_those_that_there_are() -> None:
    said = problem({"messages": [USER], "id": 3}, chat_format="sharegpt")
    assert said.startswith("data.columns: there is no column 'conversations'; the row has: messages, id")
    assert "data.chat_format to one of messages, sharegpt, alpaca, prompt_completion" in said


def test_a_declaration_that_nothing_reads_is_refused() -> None:
    data = Data(
        kind="chat", chat_format="alpaca", columns={"prompt": "p"}, roles={"bot": "robot"}, leave_out=["output", "id"]
    )
    with pytest.raises(DataError) as caught:
        check_declaration(data)
    assert [one.key for one in caught.value.problems] == ["data.columns", "data.roles", "data.leave_out"]
    assert "expected: instruction, input, output, history, tools, system, train" in str(caught.value)


PROBES = {
    name: {"messages": messages}
    for name, (messages, _) in MALFORMED.items()
    if name not in ("a number", "a mapping", "nothing")
}


def test_each_malformed_row_is_counted_and_the_others_are_kept(
    prepare_run: Callable[..., StageRun], tmp_path: Path
) -> None:
    half = {**ANSWER, "tool_calls": [{"function": {"name": "f", "arguments": {"city": "\ud83d"}}}]}
    rows = [{"messages": [USER, ANSWER]}, *PROBES.values(), {"messages": [USER, half]}, {"messages": [USER, ANSWER]}]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "corpus.txt").write_text("Hi Hello user assistant\n" * 9)
    data = {"name": "chats", "kind": "chat", "path": str(path), "malformed": "drop"}
    run = prepare_run(data, train_on={"path": str(tmp_path / "corpus.txt")})
    (facts,) = stage.prepare(run).datasets.values()
    assert facts["documents"] == 2
    assert facts["dropped"] == {"malformed": len(PROBES), "refused_by_template": 1}
    assert f"{path}:{len(rows) - 1}: messages: it holds half a character" in str(facts["dropped_rows"])
    assert [place.partition(": ")[0] for place in facts["dropped_rows"]["malformed"]] == [
        f"{path}:{line}" for line in range(2, 7)
    ]


@pytest.mark.slow
def test_a_message_of_10_mb_is_dropped_as_too_long_and_nothing_hangs(
    prepare_run: Callable[..., StageRun], write_jsonl: Callable[..., Path], tmp_path: Path
) -> None:
    huge = {"messages": [USER, {"role": "assistant", "content": "internationalisation " * 500_000}]}
    path = write_jsonl("chats.jsonl", {"messages": [USER, ANSWER]}, huge, {"messages": [USER, ANSWER]})
    assert path.stat().st_size > 10_000_000
    (tmp_path / "corpus.txt").write_text("Hi Hello user internationalisation\n" * 9)
    run = prepare_run(
        {"name": "chats", "kind": "chat", "path": str(path)}, train_on={"path": str(tmp_path / "corpus.txt")}
    )
    (facts,) = stage.prepare(run).datasets.values()
    assert (facts["documents"], facts["dropped"]) == (2, {"too_long": 1})
    assert facts["dropped_rows"] == {"too_long": [f"{path}:2"]}
    tokenizer = load_tokenizer(Path(run.config["tokenizer"]["folder"]))
    labels = PreparedRows.open(next(iter(run.config["datasets"]))["folder"], 32).row(1).labels
    assert tokenizer.backend.decode(labels[labels >= 0].tolist(), skip_special_tokens=False) == "Hello<|im_end|>"
