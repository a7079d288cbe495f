"""The arguments of calls as templates ask for them: a mapping, or its JSON (`chat.tool_arguments: text`)."""

from __future__ import annotations

import json
from typing import Any


def has_calls(messages: list[dict[str, Any]]) -> bool:
    """Whether one of the messages calls a function."""
    return any(message.get("tool_calls") for message in messages)


def with_text_arguments(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the arguments of each call as JSON."""
    return [_with_text(message) if message.get("tool_calls") else message for message in messages]


def _with_text(message: dict[str, Any]) -> dict[str, Any]:
    calls = []
    for call in message["tool_calls"]:
        arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls}
