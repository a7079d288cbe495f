"""A template that refuses calls as they are: the form that it takes is named, and only one that it does take."""

from __future__ import annotations

import re
from typing import Any

import pytest
from chat_samples import UNMARKED, call, turns

from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.call_forms import with_ids, with_text_arguments
from titanflow.data.chat.render import ChatRefused
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

RESULT = {"role": "tool", "content": "sun"}
TWICE = {**call("weather", city="Ulm"), "tool_calls": [*call("weather", city="Ulm")["tool_calls"]] * 2}
CHAT = [*turns("Weather?"), TWICE, RESULT, RESULT, {"role": "assistant", "content": "Sun."}]
JOINS = UNMARKED.replace("call.function | tojson", "call.function.name + ' ' + call.function.arguments")
"""As DeepSeek's."""
IDS = UNMARKED.replace("<call>", "{% if call.id | length != 9 %}{{ raise_exception('no id') }}{% endif %}<call>")
IDS = IDS.replace("{{ m.role }}", "{{ m.role }}{{ ' ' + m.tool_call_id if m.role == 'tool' }}", 1)
"""As Mistral's."""
BOTH = IDS.replace("call.function | tojson", "call.function.name + ' ' + call.function.arguments")
NEITHER = IDS.replace("no id", "no calls here").replace("!= 9", "< 100")


@pytest.mark.parametrize(
    ("template", "named"),
    [(JOINS, ["tool_arguments"]), (IDS, ["`id`"]), (BOTH, ["tool_arguments", "`id`"]), (NEITHER, [])],
)
def test_the_form_that_is_taken_is_named(tokenizer: LoadedTokenizer, template: str, named: list[str]) -> None:
    with pytest.raises(ChatRefused, match="refuses it") as caught:
        ChatEncoder(tokenizer, template, "own").encode(Conversation(CHAT))
    ways = re.findall(r"tool_arguments|`id`", str(caught.value))
    assert ways == named


def test_the_form_that_is_named_is_taken(tokenizer: LoadedTokenizer) -> None:
    text: dict[str, Any] = {"tool_arguments": "text"}
    for template, messages, options in ((JOINS, CHAT, text), (IDS, with_ids(CHAT), {}), (BOTH, with_ids(CHAT), text)):
        assert ChatEncoder(tokenizer, template, "own", **options).encode(Conversation(messages)).trained.any()


def test_a_refusal_that_says_dict_for_another_reason_names_no_arguments(tokenizer: LoadedTokenizer) -> None:
    # jinja2 calls a message without a key "dict object".
    strict = UNMARKED.replace("<call>", "{{ 'id: ' + call.id }}<call>")
    with pytest.raises(ChatRefused, match="'dict object' has no attribute 'id'") as caught:
        ChatEncoder(tokenizer, strict, "own").encode(Conversation(CHAT))
    assert "tool_arguments" not in str(caught.value)


def test_ids_are_those_of_the_results() -> None:
    found = with_ids(CHAT)
    ids = [one["id"] for one in found[1]["tool_calls"]]
    assert ids == [found[2]["tool_call_id"], found[3]["tool_call_id"]]
    assert all(len(name) == 9 and name.isalnum() for name in ids)
    assert len(set(ids)) == 2
    assert "id" not in CHAT[1]["tool_calls"][0], "the conversation itself stays as it is"
    assert with_ids(turns("Q", "A")) == turns("Q", "A")


def test_arguments_that_are_text_already_stay() -> None:
    once = with_text_arguments(CHAT)
    assert once[1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Ulm"}'
    assert with_text_arguments(once) == once
