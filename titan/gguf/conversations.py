"""The conversations that llama.cpp must render as transformers does, by the chat template in a GGUF file."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from titan.gguf.llama_cpp import LlamaCpp
from titanflow.common.errors import StageFailed

Conversation = dict[str, Any]

PLAIN: tuple[Conversation, ...] = (
    {"messages": [{"role": "user", "content": "What is 2 + 2?"}]},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi\n\nthere!"}]},
    {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "And now?"},
        ]
    },
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The weather of <today> & "tomorrow", in °C',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
]
CALL = {
    # Some templates take an id of nine characters alone.
    "id": "call12345",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}},
}
ASKED: list[Conversation] = [{"role": "user", "content": "What's the weather in Zürich?"}]
WITH_TOOLS: tuple[Conversation, ...] = (
    {"tools": TOOLS, "messages": ASKED},
    {
        "tools": TOOLS,
        "messages": [
            *ASKED,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": CALL["id"], "name": "get_weather", "content": '{"celsius": 20}'},
        ],
    },
)
"""Compared if the template shows tools."""


def compare_conversations(file: str, runtime: LlamaCpp, tokenizer: Any) -> int:
    """Compares the prompts that the chat template makes; returns how many, 0 without a template.

    Raises:
        StageFailed: llama.cpp makes another prompt, or none.
    """
    count = 0
    for conversation, expected in _expected(tokenizer):
        found = runtime.render(_as_sent(conversation))
        # llama.cpp leaves the first token to its tokenizer.
        if found not in (expected, expected.removeprefix(tokenizer.bos_token or "")):
            said = f"\n    transformers: {expected!r}\n    llama.cpp: {found!r}"
            what = "a conversation with tools" if "tools" in conversation else "a conversation"
            raise StageFailed(f"{file}: llama.cpp renders {what} otherwise than transformers:{said}")
        count += 1
    return count


def _expected(tokenizer: Any) -> Iterator[tuple[Conversation, str]]:
    """Each conversation that the template takes, and the prompt that transformers makes of it."""
    if not tokenizer.chat_template:
        return
    first, *others = PLAIN
    # A question alone every template takes. Else an error of this file's would leave the template unproved.
    yield first, _prompt(tokenizer, first)
    for conversation in (*others, *WITH_TOOLS):
        # Some templates take no system message, and many no tools.
        with suppress(Exception):
            prompt = _prompt(tokenizer, conversation)
            if "tools" not in conversation or prompt != _prompt(tokenizer, {**conversation, "tools": None}):
                yield conversation, prompt


def _prompt(tokenizer: Any, conversation: Conversation) -> str:
    # A template may change what it is given.
    messages, tools = copy.deepcopy((conversation["messages"], conversation.get("tools")))
    return str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True))


def _as_sent(conversation: Conversation) -> Conversation:
    """A conversation in OpenAI's form, in which a call's arguments are text."""
    sent = copy.deepcopy(conversation)
    for message in sent["messages"]:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return sent
