"""Checks a conversation before it is rendered."""

from __future__ import annotations

from typing import Any

from titanflow.common.errors import Problem

ROLES = ("system", "user", "assistant", "tool")

_MEANT = {
    "assistant": ("chatgpt", "gpt", "bot", "model", "ai", "bing", "claude", "chatbot"),
    "user": ("human", "person", "prompter", "customer"),
    "system": ("developer", "context", "instruction"),
    "tool": ("function", "ipython", "observation", "tool_response", "tool_result", "function_response", "environment"),
    "function_call": ("tool_call",),
}
"""Other names of each role, as people and other tools use them."""


def chat_problems(messages: Any, origin: str = "") -> list[Problem]:
    """Everything that is wrong with one conversation; ``origin`` is its row's ``file:line``."""
    if not isinstance(messages, list):
        found = "nothing" if messages is None else f"{type(messages).__name__} {shown(messages)}"
        expected = 'a list of {"role": …, "content": …}'
        return [Problem(f"messages isn't a list but {found}", "messages", origin, expected)]
    if not messages:
        return [Problem("the conversation has no messages", "messages", origin)]
    problems = []
    for index, message in enumerate(messages):
        problems += _message_problems(message, f"messages[{index}]", origin)
    if not problems and not any(message["role"] == "assistant" for message in messages):
        expected = "at least one message with role assistant: only its tokens are trained"
        problems.append(Problem("the conversation has no assistant turn", "messages", origin, expected))
    return problems


def _message_problems(message: Any, key: str, origin: str) -> list[Problem]:
    if not isinstance(message, dict):
        found = f"{type(message).__name__} {shown(message)}"
        return [Problem(f"the message isn't a mapping but {found}", key, origin, "role and content")]
    if message.get("role") is None and message.get("content") is None:
        keys = ", ".join(str(name) for name, value in message.items() if value is not None) or "nothing"
        return [Problem(f"the message has neither role nor content; it has: {keys}", key, origin)]
    problems = []
    role = message.get("role")
    if role not in ROLES:
        found = "the message has no role" if role is None else f"there is no role {shown(role)}"
        problems.append(Problem(found, f"{key}.role", origin, f"one of {', '.join(ROLES)}", _role_hint(role)))
    return problems + _content_problems(message, role, key, origin)


def meant_role(role: str) -> str:
    """The role that another name probably stands for; empty if none is likely."""
    plain = role.strip().lower()
    return plain if plain in ROLES else next((name for name, others in _MEANT.items() if plain in others), "")


def _role_hint(role: Any) -> str:
    """The config line that would map an unknown role to a known one."""
    if not isinstance(role, str) or not role:
        return ""
    meant = meant_role(role)
    name = role if role.replace("_", "").isalnum() else repr(role)
    if meant:
        return f"data.roles: {{{name}: {meant}}} reads it so, if that is what it is"
    return f"data.roles gives it one of them, as in {{{name}: user}}"


def _content_problems(message: dict[str, Any], role: Any, key: str, origin: str) -> list[Problem]:
    content = message.get("content")
    if content is None and role == "assistant" and message.get("tool_calls"):
        return []
    if not isinstance(content, str):
        found = "the message has no content" if content is None else f"content is {type(content).__name__}"
        return [Problem(found, f"{key}.content", origin, "text")]
    try:
        content.encode()
    except UnicodeEncodeError as error:
        found = f"half a character (a lone surrogate) at position {error.start}"
        return [Problem(found, f"{key}.content", origin, "text that UTF-8 can hold")]
    return []


def shown(value: Any) -> str:
    """A value for an error message."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…'"


def shown_text(text: str) -> str:
    """A text for an error message."""
    return repr(text if len(text) <= 60 else text[:57] + "…")
