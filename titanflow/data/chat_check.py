"""What a conversation must look like before it is rendered."""

from __future__ import annotations

from typing import Any

from titanflow.errors import Problem

ROLES = ("system", "user", "assistant", "tool")
_NEEDS_TEMPLATE = "tool_calls"
# Keys by which other tools say what to train; taking them silently for something else would train the wrong thing.
_NOT_SUPPORTED = ("train", "weight", "train_detail", "masked")


def chat_problems(messages: Any, origin: str, built_in_template: bool = True) -> list[Problem]:
    """Everything that is wrong with one conversation; empty when it can be trained on.

    Args:
        messages: what the row's messages column holds.
        origin: the row's ``file:line``.
        built_in_template: the built-in template renders ``role`` and ``content`` and nothing else.
    """
    if not isinstance(messages, list):
        found = "nothing" if messages is None else f"{type(messages).__name__} {_shown(messages)}"
        expected = 'a list of {"role": …, "content": …}'
        return [Problem(f"messages isn't a list but {found}", "messages", origin, expected)]
    if not messages:
        return [Problem("the conversation has no messages", "messages", origin)]
    problems = []
    for index, message in enumerate(messages):
        problems += _message_problems(message, f"messages[{index}]", origin, built_in_template)
    if not problems and not any(message["role"] == "assistant" for message in messages):
        problems.append(
            Problem(
                "the conversation has no assistant turn",
                "messages",
                origin,
                expected="at least one message with role assistant: only its tokens are trained",
            )
        )
    return problems


def clean_messages(messages: Any) -> Any:
    """The messages without the keys that Arrow filled in: a column's rows all get every key, absent ones as None."""
    if not isinstance(messages, list):
        return messages
    return [
        {key: value for key, value in message.items() if value is not None or key in ("role", "content")}
        if isinstance(message, dict)
        else message
        for message in messages
    ]


def _message_problems(message: Any, key: str, origin: str, built_in_template: bool) -> list[Problem]:
    if not isinstance(message, dict):
        found = f"{type(message).__name__} {_shown(message)}"
        return [Problem(f"the message isn't a mapping but {found}", key, origin, "role and content")]
    if message.get("role") is None and message.get("content") is None:
        keys = ", ".join(str(name) for name, value in message.items() if value is not None) or "nothing"
        return [Problem(f"the message has neither role nor content; it has: {keys}", key, origin)]
    problems = []
    role = message.get("role")
    if role not in ROLES:
        found = "the message has no role" if role is None else f"there is no role {_shown(role)}"
        problems.append(Problem(found, f"{key}.role", origin, f"one of {', '.join(ROLES)}"))
    for name in (name for name in _NOT_SUPPORTED if name in message):
        hint = "every assistant turn is trained; leave the key out"
        problems.append(Problem("choosing turns to train isn't supported", f"{key}.{name}", origin, hint=hint))
    if message.get(_NEEDS_TEMPLATE) and built_in_template:
        hint = "give chat.template a .jinja file that renders them"
        problems.append(
            Problem("the built-in template renders no tool calls", f"{key}.{_NEEDS_TEMPLATE}", origin, hint=hint)
        )
    return problems + _content_problems(message, role, key, origin)


def _content_problems(message: dict[str, Any], role: Any, key: str, origin: str) -> list[Problem]:
    content = message.get("content")
    calls_tools = role == "assistant" and bool(message.get(_NEEDS_TEMPLATE))
    if content is None and calls_tools:
        return []
    if not isinstance(content, str):
        found = "the message has no content" if content is None else f"content is {type(content).__name__}"
        return [Problem(found, f"{key}.content", origin, "text")]
    if role == "assistant" and not content.strip() and not calls_tools:
        hint = "write the answer, or remove the turn: it would teach the model to say nothing"
        return [Problem("the assistant's turn is empty", f"{key}.content", origin, hint=hint)]
    return []


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…'"
