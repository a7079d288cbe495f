"""Names that people give to the parts of a message or row that training must understand.

These are thoughts, calls, masks and media. Other keys are counted and shown, since their purpose is unknown here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from titanflow.common.errors import Problem
from titanflow.data.chat.check import shown

THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts", "thought")
"""Keys of an assistant's thoughts before its answer; the first is the name used here."""
CALLS = ("tool_calls", "function_call", "tool_call", "function_calls")
"""Keys of an assistant's function calls; the first is the name used here."""
MASKS = (
    *("train", "training", "trainable", "is_trainable", "train_on_turn", "train_mask"),
    *("weight", "loss_weight", "loss", "loss_mask"),
)
"""Keys that say whether a turn is trained: true or 1 if it is."""
UNCLEAR = ("mask", "masked", "is_masked")
"""Keys with two meanings: some tools mark the trained turns with them, others the untrained ones."""
MEDIA = ("image", "images", "audio", "audios", "video", "videos", "file", "files", "attachments")
"""Keys of content that a text model can't read."""
OTHERS = ("role", "content", "name", "tool_call_id")
"""Keys of a message that templates read."""

_INTO_CONTENT = "write it into the content, as the model is to say it"
_THOUGHTS = f"if these are thoughts, call them {THOUGHTS[0]}"
_GOES_ON = "it says that the answer goes on, but a trained turn must end: write the whole answer"
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
"""Keys of a message that most templates leave out though they say something, each with a way out."""
MEANT_OF_ROWS: Mapping[str, str] = {
    **dict.fromkeys(("system_prompt", "system_message"), _SYSTEM),
    **dict.fromkeys(("chat_template_kwargs", "enable_thinking"), _TEMPLATE_ARGS),
    **dict.fromkeys(THOUGHTS, "the answer that these thoughts belong to isn't named: write them into its message"),
    "documents": "write them into a message",
    "continue_final_message": _GOES_ON,
}
"""Columns that say something and that nothing here reads, each with a way out."""

_TRUE, _FALSE = (True, "1", "1.0", "true"), (False, "0", "0.0", "false")
_LEFT_OUT = "data.leave_out: [{}] trains as if it weren't there"


def refused(found: Mapping[str, Any], key: str) -> list[Problem]:
    """Problems of a message or row whose meaning would be lost or can't be known: unclear marks, images and sound.

    ``key`` is the prefix of the problems' keys; it is empty for a row.
    """
    problems = []
    for name in (name for name in UNCLEAR if _says_something(found.get(name))):
        message = f"found {shown(found[name])}: some tools mark the trained turns so, others the untrained ones"
        hint = f"data.columns: {{train: {name}}} reads 1 as trained; {_LEFT_OUT.format(name)}"
        problems.append(Problem(message, f"{key}{name}", expected="train: true or false", hint=hint))
    for name in (name for name in MEDIA if found.get(name)):
        message = f"found {shown(found[name])}, and text alone is trained on"
        problems.append(Problem(message, f"{key}{name}", hint=_LEFT_OUT.format(name)))
    return problems


def lost_of_row(found: Mapping[str, Any]) -> list[Problem]:
    """A problem for each column of a row that says something and that nothing reads."""
    return [_lost(name, name, found[name], hint) for name, hint in MEANT_OF_ROWS.items() if found.get(name)]


def lost_of_messages(messages: list[dict[str, Any]], template: str) -> list[Problem]:
    """A problem for each key of a message that says something and that the template never reads."""
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
    """Whether a message or row is marked as trained; None without a mark."""
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
    """The thoughts of a message or row, empty if it has none."""
    said = {name: found[name] for name in THOUGHTS if _says_something(found.get(name))}
    for name, value in said.items():
        if not isinstance(value, str):
            problems.append(Problem(f"found {shown(value)}", f"{key}{name}", expected="text"))
    if len({str(value) for value in said.values()}) > 1:
        problems.append(Problem(f"{' and '.join(said)} say different things", key.rstrip("."), expected="one of them"))
    return str(next(iter(said.values()), ""))


def spelled(messages: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """The messages, with an assistant's thoughts under each name that the template reads."""
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
    """Whether a template's source reads a key of a message: ``message.name`` or ``message['name']``."""
    return bool(re.search(rf"[.'\"]{re.escape(name)}(?!\w)", template))


def _says_something(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())
