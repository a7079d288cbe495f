"""Reads one message, in the forms that people write it in, into role, content, calls and thoughts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.keys.chat_columns import CALL
from titanflow.data.chat.calls import calls_of
from titanflow.data.chat.keys import CALLS, MASKS, MEDIA, OTHERS, THOUGHTS, UNCLEAR, refused, thoughts, trains

_TEXTS = ("text", "value", "content")
"""Keys of a part's text."""
_TEXT_PARTS = ("text", "input_text", "output_text")
"""The types of parts that are text."""
_OTHER_PARTS = {
    **dict.fromkeys(("thinking", "reasoning", "redacted_thinking"), f"give an answer's thoughts as {THOUGHTS[0]}"),
    **dict.fromkeys(("tool_use", "tool_call", "function_call"), f"give calls as {CALLS[0]}"),
    "tool_result": "give a tool's result as a message of the role tool",
    "refusal": "give what is said as text",
}
"""Hints for the types of parts that are neither text nor media."""
_UNDERSTOOD = {*OTHERS, *CALLS, *MASKS, *MEDIA, *UNCLEAR}


def read_message(
    message: Any,
    names: Mapping[str, str],
    roles: Mapping[str, str],
    key: str,
    problems: list[Problem],
    unread: Counter[str],
) -> Any:
    """A message with the keys and roles that templates know; anything but a mapping is returned as it is.

    Args:
        names: the file's keys, each with its name here.
        roles: the file's roles, each with its name here.
        key: the message's key in its row, for the problems.
        unread: counts the keys that nothing here understands; a template may read them.
    """
    if not isinstance(message, dict):
        return message
    read: dict[str, Any] = {}
    column = key.partition("[")[0]
    named = {names[name] for name in message if name in names}
    for name, value in message.items():
        # If two keys would get the same name, the declared one counts.
        is_other = name in named and name not in names
        # A role or content that is null is kept for the checks that follow.
        if (value is not None and not is_other) or names.get(name) in OTHERS:
            read[names.get(name, str(name))] = value
        elif value is not None:
            unread[f"{column}[].{name}"] += 1
    place = f"{key}."
    role = read.get("role")
    if isinstance(role, str):
        read["role"] = roles.get(role, role)
    problems += refused(read, place)
    if read.get("role") == CALL:
        read = {**read, "role": "assistant", "content": "", CALLS[0]: read.get("content")}
    if isinstance(read.get("content"), list):
        of_parts = Counter[str]()
        read["content"] = _joined(read["content"], f"{key}.content", problems, of_parts)
        unread.update({f"{column}[].content[].{name}": count for name, count in of_parts.items()})
    if any(name in read for name in CALLS):
        of_calls = Counter[str]()
        _take_calls(read, place, problems, of_calls)
        unread.update({f"{column}[].{CALLS[0]}[].{name}": count for name, count in of_calls.items()})
    if thinks := read.get("role") == "assistant":
        _take_thoughts(read, place, problems)
    is_trained = _take_mark(read, place, problems)
    if is_trained and read.get("role") in ("system", "user", "tool"):
        unread[f"{column}[].train of the {read['role']}"] += 1
    understood = {*_UNDERSTOOD, THOUGHTS[0]} if thinks else _UNDERSTOOD
    unread.update(f"{column}[].{name}" for name in read if name not in understood)
    return read


def _take_calls(read: dict[str, Any], place: str, problems: list[Problem], unread: Counter[str]) -> None:
    """Gives calls the key ``tool_calls``, whichever they have, such as OpenAI's older ``function_call``."""
    given = {name: value for name in CALLS if (value := read.get(name))}
    for name in CALLS[1:]:
        read.pop(name, None)
    if len(given) > 1:
        found = f"found {' and '.join(given)}"
        problems.append(Problem(found, place.rstrip("."), expected="the calls once, as tool_calls"))
        given.pop(CALLS[0], None)
    for name, value in given.items():
        read[CALLS[0]] = calls_of(value, f"{place}{name}", problems, unread)


def _take_thoughts(read: dict[str, Any], place: str, problems: list[Problem]) -> None:
    said = thoughts(read, place, problems)
    for name in THOUGHTS:
        read.pop(name, None)
    if said:
        read[THOUGHTS[0]] = said


def _take_mark(read: dict[str, Any], place: str, problems: list[Problem]) -> bool | None:
    """Marks an untrained turn with ``train: false``; returns the message's own mark."""
    is_trained = trains(read, place, problems)
    for name in MASKS:
        read.pop(name, None)
    if is_trained is False:
        read["train"] = False
    return is_trained


def _joined(parts: list[Any], key: str, problems: list[Problem], unread: Counter[str]) -> Any:
    """The text of OpenAI's content in parts; ``unread`` counts the parts' other keys."""
    texts = []
    for index, part in enumerate(parts):
        said = {name: part[name] for name in _TEXTS if part.get(name) is not None} if isinstance(part, dict) else {}
        text = next(iter(said.values()), None)
        if isinstance(part, dict) and part.get("type") in _TEXT_PARTS and len(said) == 1 and isinstance(text, str):
            texts.append(text)
            unread.update(str(name) for name, value in part.items() if value and name not in ("type", *_TEXTS))
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        found = f"a part of the type {kind!r}" if kind else f"a part that is {type(part).__name__}"
        expected = 'text alone: {"type": "text", "text": …}'
        hint = _OTHER_PARTS.get(kind, "images and sound aren't trained on") if isinstance(kind, str) else ""
        problems.append(Problem(found, f"{key}[{index}]", expected=expected, hint=hint))
    return "".join(texts) if parts else parts
