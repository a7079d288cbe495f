"""Calls of functions and the functions' descriptions, as files write them, read into OpenAI's form."""

from __future__ import annotations

from typing import Any

from titanflow.data.chat_check import shown
from titanflow.data.json_rows import JsonFault, parsed_json
from titanflow.errors import Problem


def calls_of(value: Any, key: str, problems: list[Problem]) -> list[dict[str, Any]]:
    """OpenAI's ``tool_calls`` with their arguments as a mapping, which is what templates render.

    Args:
        value: one call or a list of them, each a mapping or JSON text, with or without ``function`` around it.
        key: where it stands, for the problems.
        problems: gets what is wrong.
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
        arguments = inner.get("arguments")
        arguments = {} if arguments in (None, "") else arguments
        if isinstance(arguments, str):
            arguments = parsed(arguments, f"{key}.arguments", problems)
        if arguments is not None and not isinstance(arguments, dict):
            problems.append(Problem(f"found {shown(arguments)}", f"{key}.arguments", expected="a JSON object"))
        function = {"name": inner["name"], "arguments": arguments}
        identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        calls.append({**identity, "type": "function", "function": function})
    return calls


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
    if wrong := [tool for tool in tools if not isinstance(tool, dict)]:
        problems.append(Problem(f"found {shown(wrong[0])}", key, expected="a list of function descriptions"))
        return None
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def parsed(text: str, key: str, problems: list[Problem]) -> Any:
    """What JSON text says; None, and a problem, where it can't be taken as JSON."""
    try:
        return parsed_json(text)
    except JsonFault as fault:
        problems.append(Problem(f"found {shown(text)}, {fault}", key))
        return None
