"""Reads function calls and function descriptions, in the forms that files have them, into OpenAI's form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from titanflow.common.errors import Problem
from titanflow.data.chat.check import shown
from titanflow.data.files.json_rows import JsonFault, parsed_json

_ARGUMENTS = ("arguments", "parameters", "args", "input", "kwargs")
"""Names of a call's arguments; the first is the one used here."""


def calls_of(value: Any, key: str, problems: list[Problem], unread: Counter[str]) -> list[dict[str, Any]]:
    """OpenAI's ``tool_calls`` with their arguments as a mapping, which is what templates render.

    ``value`` is one call or a list of them, each a mapping or JSON text, with or without ``function`` around it.
    ``problems`` gets the problems, which name ``key``; ``unread`` counts the keys that nothing here understands.
    """
    if isinstance(value, str):
        value = parsed(value, key, problems)
    calls = []
    for call in value if isinstance(value, list) else [value]:
        inner = call.get("function", call) if isinstance(call, dict) else None
        if isinstance(inner, str):
            inner = parsed(inner, key, problems)
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            if call is not None:
                problems.append(Problem(f"found {shown(call)}", key, expected='{"name": …, "arguments": {…}}'))
            continue
        arguments = _arguments(inner, key, problems)
        if isinstance(arguments, str):
            arguments = parsed(arguments, f"{key}.arguments", problems)
        if arguments is not None and not isinstance(arguments, dict):
            problems.append(Problem(f"found {shown(arguments)}", f"{key}.arguments", expected="a JSON object"))
        outer = () if inner is call else call
        unread.update(str(name) for name in outer if name not in ("id", "type", "function"))
        unread.update(str(name) for name in inner if name not in ("id", "type", "name", *_ARGUMENTS))
        function = {"name": inner["name"], "arguments": arguments}
        identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        calls.append({**identity, "type": "function", "function": function})
    return calls


def _arguments(function: Mapping[str, Any], key: str, problems: list[Problem]) -> Any:
    given = {name: function[name] for name in _ARGUMENTS if function.get(name) not in (None, "")}
    if len(given) > 1:
        problems.append(Problem(f"the call of {function['name']} has {' and '.join(given)}", key, "", "one of them"))
    return next(iter(given.values()), {})


def tools_of(value: Any, key: str, problems: list[Problem]) -> list[dict[str, Any]] | None:
    """Function descriptions in OpenAI's form: ``{"type": "function", "function": {…}}``."""
    if isinstance(value, str):
        value = parsed(value, key, problems) if value.strip() else None
    if not value:
        return None
    tools = value if isinstance(value, list) else [value]
    known = len(problems)
    tools = [parsed(tool, key, problems) if isinstance(tool, str) else tool for tool in tools]
    if len(problems) > known:
        return None
    if wrong := [tool for tool in tools if not _name(tool)]:
        expected = 'a list of function descriptions: {"name": …, "description": …, "parameters": {…}}'
        hint = f"data.leave_out: [{key}] trains without them"
        problems.append(Problem(f"found {shown(wrong[0])}", key, expected=expected, hint=hint))
        return None
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def _name(tool: Any) -> str:
    """The name in a function's description, with or without ``function`` around it; empty if there is none."""
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def parsed(text: str, key: str, problems: list[Problem]) -> Any:
    """The value of a JSON text; None, and a problem, if it isn't one."""
    try:
        return parsed_json(text)
    except JsonFault as fault:
        problems.append(Problem(f"found {shown(text)}, {fault}", key))
        return None
