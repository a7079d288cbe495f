"""What people call the parts of a message or row that mean something to a training: thoughts, calls, masks, media.

Every other key is counted and shown, since nothing here knows what it is for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from titanflow.common.errors import Problem
from titanflow.data.chat.check import shown

THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts", "thought")
"""What an assistant thinks before it answers; the first is what it is called here."""
CALLS = ("tool_calls", "function_call", "tool_call", "function_calls")
"""The functions that an assistant calls; the first is what they are called here."""
MASKS = (
    *("train", "training", "trainable", "is_trainable", "train_on_turn", "train_mask"),
    *("weight", "loss_weight", "loss", "loss_mask"),
)
"""Whether a turn is trained: true or 1 says that it is."""
UNCLEAR = ("mask", "masked", "is_masked")
"""Some tools mark with these what is trained, others what isn't."""
MEDIA = ("image", "images", "audio", "audios", "video", "videos", "file", "files", "attachments")
"""What no text model reads."""
OTHERS = ("role", "content", "name", "tool_call_id")
"""Keys of a message that templates read."""

_INTO_CONTENT = "write it into the content, as the model is to say it"
_THOUGHTS = f"if these are thoughts, call them {THOUGHTS[0]}"
_GOES_ON = "it says that the answer goes on, and a trained turn ends: write the whole answer"
_PARTLY = "a turn is trained as a whole: write one message for what is trained"
_SYSTEM = "data.columns: {{system: {0}}} reads it as the system's message"
_TEMPLATE_ARGS = "chat.template_args gives a template the same for every row"
MEANT: Mapping[str, str] = {
    **dict.fromkeys(("refusal", "tool_plan"), _INTO_CONTENT),
    **dict.fromkeys(("reasoning_details", "thinking_blocks", "chain_of_thought", "cot", "thought_process"), _THOUGHTS),
    **dict.fromkeys(("prefix", "partial", "continue_final_message"), _GOES_ON),
    **dict.fromkeys(("train_detail", "training_detail"), _PARTLY),
    **dict.fromkeys(("documents", "tool_results", "tool_responses"), "write a message of its own for it"),
    **dict.fromkeys(
        ("tool_uses", "tools"), f"give the calls as {CALLS[0]}, and what is offered as a column of the row"
    ),
}
"""Keys of a message that say something which most templates leave out, and what to do then."""
MEANT_OF_ROWS: Mapping[str, str] = {
    **dict.fromkeys(("system_prompt", "system_message"), _SYSTEM),
    **dict.fromkeys(("chat_template_kwargs", "enable_thinking"), _TEMPLATE_ARGS),
    **dict.fromkeys(THOUGHTS, "which answer's thoughts they are isn't said: write them into its message"),
    "documents": "write them into a message",
    "continue_final_message": _GOES_ON,
}
"""Columns that say something which nothing here reads."""

_TRUE, _FALSE = (True, "1", "1.0", "true"), (False, "0", "0.0", "false")
_LEFT_OUT = "data.leave_out: [{}] trains as if it weren't there"


def refused(found: Mapping[str, Any], key: str) -> list[Problem]:
    """The values whose meaning would be lost, or can't be known: marks with two meanings, images and sound.

    Args:
        found: a message or a row.
        key: where it stands; empty for a row.
    """
    problems = []
    for name in (name for name in UNCLEAR if _says_something(found.get(name))):
        message = f"found {shown(found[name])}: some tools mark so what is trained, others what isn't"
        hint = f"data.columns: {{train: {name}}} reads 1 as trained; {_LEFT_OUT.format(name)}"
        problems.append(Problem(message, f"{key}{name}", expected="train: true or false", hint=hint))
    for name in (name for name in MEDIA if found.get(name)):
        message = f"found {shown(found[name])}, and text alone is trained on"
        problems.append(Problem(message, f"{key}{name}", hint=_LEFT_OUT.format(name)))
    return problems


def lost_of_row(found: Mapping[str, Any]) -> list[Problem]:
    """The columns of a row that say something, and that nothing reads."""
    return [_lost(name, name, found[name], hint) for name, hint in MEANT_OF_ROWS.items() if found.get(name)]


def lost_of_messages(messages: list[dict[str, Any]], template: str) -> list[Problem]:
    """The keys of messages that say something, and that a template never asks for."""
    return [
        _lost(name, f"messages[{number}].{name}", message[name], hint)
        for number, message in enumerate(messages)
        for name, hint in MEANT.items()
        if message.get(name) and not reads(template, name)
    ]


def _lost(name: str, key: str, value: Any, hint: str) -> Problem:
    message = f"found {shown(value)}, and nothing reads it"
    return Problem(message, key, hint=f"{hint.format(name)}; {_LEFT_OUT.format(name)}")


def trains(found: Mapping[str, Any], key: str, problems: list[Problem]) -> bool | None:
    """What a message or row says of whether it is trained; None where it says nothing."""
    said: dict[str, bool] = {}
    for name in (name for name in MASKS if _says_something(found.get(name))):
        value = found[name].strip().lower() if isinstance(found[name], str) else found[name]
        if value in _TRUE or value in _FALSE:
            said[name] = value in _TRUE
        else:
            hint = f"a turn is trained or it isn't; {_LEFT_OUT.format(name)}"
            problems.append(Problem(f"found {shown(found[name])}", f"{key}{name}", "", "true or false, 1 or 0", hint))
    if len(set(said.values())) > 1:
        marks = " and ".join(f"{name}: {shown(found[name])}" for name in said)
        problems.append(Problem(f"found {marks}", key.rstrip("."), expected="marks that agree"))
    return next(iter(said.values()), None)


def thoughts(found: Mapping[str, Any], key: str, problems: list[Problem]) -> str:
    """What an assistant thinks, empty where it says nothing of it."""
    said = {name: found[name] for name in THOUGHTS if _says_something(found.get(name))}
    for name, value in said.items():
        if not isinstance(value, str):
            problems.append(Problem(f"found {shown(value)}", f"{key}{name}", expected="text"))
    if len({str(value) for value in said.values()}) > 1:
        problems.append(Problem(f"{' and '.join(said)} say different things", key.rstrip("."), expected="one of them"))
    return str(next(iter(said.values()), ""))


def spelled(messages: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """Messages whose thoughts have the names that a template reads."""
    names = [name for name in THOUGHTS if reads(template, name)]
    if not names:
        return messages
    return [
        {**{key: value for key, value in one.items() if key != THOUGHTS[0]}, **dict.fromkeys(names, one[THOUGHTS[0]])}
        if THOUGHTS[0] in one and one["role"] == "assistant"
        else one
        for one in messages
    ]


@lru_cache(maxsize=256)
def reads(template: str, name: str) -> bool:
    """Whether a template's source asks a message for a key: ``message.name`` or ``message['name']``."""
    return bool(re.search(rf"[.'\"]{re.escape(name)}(?!\w)", template))


def _says_something(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())
