"""The forms of calls that templates expect: arguments as a mapping or as JSON, with ids or without."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

Messages = list[dict[str, Any]]


def with_text_arguments(messages: Messages) -> Messages:
    return [_with_text(message) if message.get("tool_calls") else message for message in messages]


def with_ids(messages: Messages) -> Messages:
    """The messages with an id of nine letters and digits in each call and in its result."""
    numbers = itertools.count()
    waiting: list[str] = []
    found = []
    for message in messages:
        if calls := message.get("tool_calls"):
            waiting = [f"call{next(numbers):05}" for _ in calls]
            calls = [{**call, "id": name} for call, name in zip(calls, waiting, strict=True)]
            message = {**message, "tool_calls": calls}
        elif message.get("role") == "tool" and waiting:
            message = {**message, "tool_call_id": waiting.pop(0)}
        found.append(message)
    return found


def accepted_form(messages: Messages, is_accepted: Callable[[Messages], bool]) -> str:
    """A hint on the form in which a template accepts the calls of ``messages``, which it refuses; empty if none does.

    ``is_accepted`` says whether the template accepts messages.
    """
    if not any(message.get("tool_calls") for message in messages):
        return ""
    text = "chat.tool_arguments: text hands it the arguments of calls as JSON"
    ids = "it takes calls that have an `id` of nine letters or digits, and results with the `tool_call_id` of theirs"
    if is_accepted(with_text_arguments(messages)):
        return text
    if is_accepted(with_ids(messages)):
        return ids
    return f"{text}, and {ids}" if is_accepted(with_ids(with_text_arguments(messages))) else ""


def _with_text(message: dict[str, Any]) -> dict[str, Any]:
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls}
