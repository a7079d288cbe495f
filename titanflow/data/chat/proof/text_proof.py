"""Proves that a row holds all that its conversation says: no template may leave out a message in silence.

A template without support for system messages, tools' results or thoughts renders the rest without an error. So each
text is looked for in the row's decoded tokens. A template may space, trim or escape a text; that is counted.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from titanflow.common.errors import Problem
from titanflow.data.chat.check import shown_text
from titanflow.data.chat.encoder import ChatEncoder, Encoded
from titanflow.data.chat.keys import THOUGHTS
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.lost_thoughts import way_to_thoughts

_OPENED, _CLOSED = "<think>", "</think>"
_HALF = re.compile("[\ud800-\udfff]")
# Replaces a text that was found, so that an equal one must be found somewhere else.
_FOUND = "\0"
_FORGOTTEN = "the template leaves out the thoughts of earlier turns"
_OTHERWISE = "chat.template: chatml writes every message and tool"


class LeftOut(Exception):
    """A template leaves out ``what`` of a row, at ``key``; ``hint`` is a way out."""

    def __init__(self, what: str, key: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.key, self.hint = what, key, hint


@dataclass
class RowText:
    """A row's untrained text, from which found messages are taken out one by one, and its trained text."""

    context: str
    trained: str
    _before: list[tuple[int, str]] = field(default_factory=list)

    def take(self, form: str, length: int) -> None:
        """Takes a message of ``length`` characters, written as ``form``, out of the context."""
        self._before.append((length, self.context))
        self.context = self.context.replace(form, _FOUND, 1)

    def beside_longer(self, text: str) -> str:
        """The context without the messages longer than a text; the others stay, as they may be parts of that text."""
        return next((context for length, context in self._before if length <= len(text)), self.context)


class TextProof:
    """Looks for what conversations say in the rows of one encoder."""

    def __init__(self, encoder: ChatEncoder) -> None:
        self.encoder = encoder
        self.tokenizer = encoder.tokenizer

    def look(self, conversation: Conversation, encoded: Encoded) -> tuple[Problem | None, list[str]]:
        """The first part that is left out of a row, or None; and notes on texts that the template changes."""
        row, notes = self._row(encoded), dict[str, None]()
        messages = conversation.messages
        try:
            # The longest first: a short text may stand in a longer one.
            for number in sorted(range(len(messages)), key=lambda at: -len(messages[at].get("content") or "")):
                notes |= dict.fromkeys(self._content(messages[number], number, row, number in encoded.turns))
            for number in range(len(messages)):
                notes |= dict.fromkeys(self._beside(conversation, number, row, number in encoded.turns))
            for tool in conversation.tools or []:
                self._tool(tool, row)
        except LeftOut as left_out:
            return self._problem(left_out), []
        return None, list(notes)

    def unwritten(self, conversation: Conversation, encoded: Encoded) -> Problem | None:
        """The first part of a trained turn that the template doesn't write at all: thoughts, a call or text."""
        left_out = (self._unwritten(conversation, turn) for turn in encoded.turns)
        return next((self._problem(found) for found in left_out if found), None)

    def _unwritten(self, conversation: Conversation, turn: int) -> LeftOut | None:
        message, key = conversation.messages[turn], f"messages[{turn}]"
        content = message.get("content") or ""
        thoughts, closed, _ = content.partition(_CLOSED)
        calls = message.get("tool_calls") or []
        others = {
            "thoughts": {**message, "content": content.replace(closed, f"x{closed}", 1)} if closed else message,
            **{f"call of {one['function']['name']}": _with_other_call(message, at) for at, one in enumerate(calls)},
            "text": {**message, "content": f"{content}x"},
        }
        ignores = self.encoder.renderer.ignores
        what = next((what for what, one in others.items() if one != message and ignores(conversation, turn, one)), "")
        if what == "thoughts":
            return self._lost_thoughts(conversation, turn, thoughts.strip().removeprefix(_OPENED).strip(), "content")
        return LeftOut(f"the {what} in {key}", key, _OTHERWISE) if what else None

    def _problem(self, left_out: LeftOut) -> Problem:
        found = f"template {self.encoder.name} leaves out {left_out.what}"
        return Problem(found, left_out.key, hint=left_out.hint)

    def _row(self, encoded: Encoded) -> RowText:
        borders = [0, *(np.flatnonzero(np.diff(encoded.trained)) + 1).tolist(), len(encoded.ids)]
        texts: dict[bool, list[str]] = {False: [], True: [self.tokenizer.decode(self.encoder.header)]}
        for start, end in itertools.pairwise(borders):
            if start < end:
                texts[bool(encoded.trained[start])].append(self.tokenizer.decode(encoded.ids[start:end].tolist()))
        return RowText(_FOUND.join(texts[False]), _FOUND.join(texts[True]))

    def _content(self, message: dict[str, Any], number: int, row: RowText, is_trained: bool) -> Iterator[str]:
        role, content = message["role"], message.get("content") or ""
        if is_trained:
            # Its text without the blanks around it is proved with the mask.
            changed = "" if content == content.strip() else self._found(content, row.trained)
            if not (content.strip() or message.get(THOUGHTS[0]) or message.get("tool_calls")):
                yield "an assistant's turn says nothing"
        else:
            changed = self._take(content, row)
        if changed is None and not is_trained and role == "assistant" and _CLOSED in content:
            changed = self._take(content.rpartition(_CLOSED)[2], row)
            yield _FORGOTTEN
        if changed is None and not is_trained:
            way_out = f"data.roles: {{{role}: user}} reads it as a user's; " if role in ("system", "tool") else ""
            what = f"the {role}'s message {shown_text(content)}"
            raise LeftOut(what, f"messages[{number}]", f"{way_out}{_OTHERWISE}")
        if changed:
            yield f"the template {changed} the {role}'s text"

    def _beside(self, conversation: Conversation, number: int, row: RowText, is_trained: bool) -> Iterator[str]:
        """Looks for a message's thoughts, calls and name."""
        message, key = conversation.messages[number], f"messages[{number}]"
        if message["role"] == "assistant":
            yield from self._thoughts(conversation, number, row, is_trained)
        for call in message.get("tool_calls") or []:
            self._call(call["function"], key, row, is_trained)
        yield from self._name(message, key, row)

    def _thoughts(self, conversation: Conversation, number: int, row: RowText, is_trained: bool) -> Iterator[str]:
        thoughts = conversation.messages[number].get(THOUGHTS[0], "")
        where = row.trained if is_trained else row.beside_longer(thoughts)
        if not thoughts or self._found(thoughts, where) is not None:
            return
        if is_trained:
            raise self._lost_thoughts(conversation, number, thoughts, THOUGHTS[0])
        yield _FORGOTTEN

    def _lost_thoughts(self, conversation: Conversation, number: int, thoughts: str, key: str) -> LeftOut:
        found = f"the assistant's thoughts {shown_text(thoughts)}"
        way = way_to_thoughts(self.encoder.renderer, conversation, number, thoughts)
        hints = [f"{way} trains them" if way else f"chat.template: name one that writes message.{THOUGHTS[0]}"]
        if key == THOUGHTS[0] and not way:
            hints.append("or write them into the content as the model is to spell them (<think>…</think>)")
        if key == THOUGHTS[0]:
            hints.append("data.leave_out, with their key, trains without them")
        return LeftOut(found, f"messages[{number}].{key}", "; ".join(hints))

    def _call(self, function: dict[str, Any], key: str, row: RowText, is_trained: bool) -> None:
        for text in [function["name"], *_leaves(function.get("arguments"))]:
            if self._found(text, row.trained if is_trained else row.beside_longer(text)) is None:
                found = f"{shown_text(text)} of the call of {function['name']}"
                raise LeftOut(found, f"{key}.tool_calls", _OTHERWISE)

    def _name(self, message: dict[str, Any], key: str, row: RowText) -> Iterator[str]:
        name, role = message.get("name"), message["role"]
        if not isinstance(name, str) or self._found(name, row.beside_longer(name) + row.trained) is not None:
            return
        if role != "tool":
            hint = "data.leave_out: [name] trains without it; or name a template in chat.template that writes it"
            raise LeftOut(f"the name of the {role}'s message, {shown_text(name)}", f"{key}.name", hint)
        yield "the template leaves out the name of a tool's message"

    def _tool(self, tool: dict[str, Any], row: RowText) -> None:
        function = tool["function"] if isinstance(tool.get("function"), dict) else tool
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, dict) else None
        names = properties if isinstance(properties, dict) else ()
        for text in [function.get("name"), function.get("description"), *names]:
            if isinstance(text, str) and self._found(text, row.beside_longer(text)) is None:
                found = f"{shown_text(text)} of the tool {function.get('name')}"
                raise LeftOut(found, "tools", f"data.leave_out: [tools] trains without them; {_OTHERWISE}")

    def _take(self, text: str, row: RowText) -> str | None:
        """As :meth:`_found` in the context, from which the text is taken out."""
        for form, change in self._forms(text):
            if form in row.context:
                if form.strip():
                    row.take(form, len(text))
                return change
        return _loosely(text, row.context)

    def _found(self, text: str, where: str) -> str | None:
        """How a text is changed within another: a verb, or empty if it isn't; None if it isn't there."""
        exact = next((change for form, change in self._forms(text) if form in where), None)
        return _loosely(text, where) if exact is None else exact

    def _forms(self, text: str) -> Iterator[tuple[str, str]]:
        """The forms that a text may have in a row, each with its change; half a character has none."""
        if not text.isascii() and _HALF.search(text):
            return
        yield text, ""
        yield self._round_trip(text), ""
        yield text.strip(), "trims"
        yield self._round_trip(text.strip()).strip(), "trims"
        yield json.dumps(text, ensure_ascii=False)[1:-1], "escapes"

    def _round_trip(self, text: str) -> str:
        return self.tokenizer.decode(self.tokenizer.encode(text))


def _with_other_call(message: dict[str, Any], at: int) -> dict[str, Any]:
    calls = list(message["tool_calls"])
    function = calls[at]["function"]
    calls[at] = {**calls[at], "function": {**function, "name": f"{function['name']}x"}}
    return {**message, "tool_calls": calls}


def _loosely(text: str, where: str) -> str | None:
    """Whether a text stands in another, apart from blanks and backslashes."""
    squeezed = _squeezed(where)
    forms = (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1])
    return "spaces or escapes" if any(_squeezed(form) in squeezed for form in forms) else None


def _squeezed(text: str) -> str:
    return "".join(text.split()).replace("\\", "")


def _leaves(value: Any) -> Iterator[str]:
    """The keys, texts and numbers of a call's arguments."""
    if isinstance(value, dict):
        yield from (str(key) for key in value)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)
