"""The proof that a row holds all that its conversation says: no template may leave out a message in silence.

A template that knows no system message, no tool's result or no thoughts renders the rest without an error. So each text
is looked for in the row's tokens, decoded again. A template may space, trim or escape a text; that is counted.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from titanflow.data.chat import ChatEncoder, Encoded
from titanflow.data.chat_format import Conversation
from titanflow.data.chat_keys import THOUGHTS
from titanflow.errors import Problem

_CLOSED = "</think>"
_HALF = re.compile("[\ud800-\udfff]")
# In place of a text that was found, so that an equal one must stand somewhere else.
_FOUND = "\0"
_FORGOTTEN = "the template leaves out the thoughts of earlier turns"
_OTHERWISE = "chat.template: chatml writes every message and tool"


class LeftOut(Exception):
    """What a template leaves out of a row: a phrase, the key that it stands under, and the way out."""

    def __init__(self, what: str, key: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.key, self.hint = what, key, hint


@dataclass
class RowText:
    """What a row says: outside of what is trained, and in it."""

    context: str
    trained: str


class TextProof:
    """Looks for what conversations say in the rows of one encoder."""

    def __init__(self, encoder: ChatEncoder) -> None:
        self.encoder = encoder
        self.backend = encoder.tokenizer.backend

    def look(self, conversation: Conversation, encoded: Encoded) -> tuple[Problem | None, list[str]]:
        """What is left out of a row, or None; and what the template writes otherwise than the conversation has it."""
        row, notes = self._row(encoded), dict[str, None]()
        messages = conversation.messages
        try:
            # The longest first: a short text may stand in a longer one.
            for number in sorted(range(len(messages)), key=lambda at: -len(messages[at].get("content") or "")):
                notes |= dict.fromkeys(self._message(messages[number], number, row, number in encoded.turns))
            for tool in conversation.tools or []:
                self._tool(tool, row)
        except LeftOut as left_out:
            found = f"template {self.encoder.name} leaves out {left_out.what}"
            return Problem(found, left_out.key, hint=left_out.hint), []
        return None, list(notes)

    def _row(self, encoded: Encoded) -> RowText:
        borders = [0, *(np.flatnonzero(np.diff(encoded.trained)) + 1).tolist(), len(encoded.ids)]
        texts: dict[bool, list[str]] = {False: [], True: [self._text(self.encoder.header)]}
        for start, end in itertools.pairwise(borders):
            if start < end:
                texts[bool(encoded.trained[start])].append(self._text(encoded.ids[start:end].tolist()))
        return RowText(_FOUND.join(texts[False]), _FOUND.join(texts[True]))

    def _message(self, message: dict[str, Any], number: int, row: RowText, is_trained: bool) -> Iterator[str]:
        role, key = message["role"], f"messages[{number}]"
        content = message.get("content") or ""
        thoughts = message.get(THOUGHTS[0], "") if role == "assistant" else ""
        where = row.trained if is_trained else row.context
        if is_trained:
            # What it says without the blanks around it is proved with the mask.
            changed = "" if content == content.strip() else self._found(content, where)
            if not (content.strip() or thoughts or message.get("tool_calls")):
                yield "an assistant's turn says nothing"
        else:
            changed = self._take(content, row)
        if changed is None and not is_trained and role == "assistant" and _CLOSED in content:
            changed = self._take(content.rpartition(_CLOSED)[2], row)
            yield _FORGOTTEN
        if changed is None and not is_trained:
            way_out = f"data.roles: {{{role}: user}} reads it as a user's; " if role in ("system", "tool") else ""
            raise LeftOut(f"the {role}'s message {_shown(content)}", key, f"{way_out}{_OTHERWISE}")
        if changed:
            yield f"the template {changed} the {role}'s text"
        yield from self._thoughts(thoughts, key, where, is_trained)
        for call in message.get("tool_calls") or []:
            self._call(call["function"], key, where)
        yield from self._name(message, key, row)

    def _thoughts(self, thoughts: str, key: str, where: str, is_trained: bool) -> Iterator[str]:
        if not thoughts or self._found(thoughts, where) is not None:
            return
        if not is_trained:
            yield _FORGOTTEN
            return
        raise LeftOut(
            f"the assistant's thoughts {_shown(thoughts)}",
            f"{key}.{THOUGHTS[0]}",
            "write them into the content as the model is to spell them (<think>…</think>), or name a template in "
            f"chat.template that writes message.{THOUGHTS[0]}; data.leave_out, with their key, trains without them",
        )

    def _call(self, function: dict[str, Any], key: str, where: str) -> None:
        for text in [function["name"], *_leaves(function.get("arguments"))]:
            if self._found(text, where) is None:
                found = f"{_shown(text)} of the call of {function['name']}"
                raise LeftOut(found, f"{key}.tool_calls", _OTHERWISE)

    def _name(self, message: dict[str, Any], key: str, row: RowText) -> Iterator[str]:
        name, role = message.get("name"), message["role"]
        if not isinstance(name, str) or self._found(name, row.context + row.trained) is not None:
            return
        if role != "tool":
            hint = "data.leave_out: [name] trains without it; or name a template in chat.template that writes it"
            raise LeftOut(f"the name of the {role}'s message, {_shown(name)}", f"{key}.name", hint)
        yield "the template leaves out the name of a tool's message"

    def _tool(self, tool: dict[str, Any], row: RowText) -> None:
        function = tool["function"] if isinstance(tool.get("function"), dict) else tool
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, dict) else None
        texts = [
            function.get("name"),
            function.get("description"),
            *(properties if isinstance(properties, dict) else ()),
        ]
        for text in texts:
            if isinstance(text, str) and self._found(text, row.context) is None:
                found = f"{_shown(text)} of the tool {function.get('name')}"
                raise LeftOut(found, "tools", f"data.leave_out: [tools] trains without them; {_OTHERWISE}")

    def _take(self, text: str, row: RowText) -> str | None:
        """As :meth:`_found`; what is found isn't there for a later text."""
        for form, change in self._forms(text):
            if form in row.context:
                row.context = row.context.replace(form, _FOUND, 1) if form.strip() else row.context
                return change
        return _loosely(text, row.context)

    def _found(self, text: str, where: str) -> str | None:
        """What is done to a text in another: nothing (empty), or a verb; None where it isn't there."""
        exact = next((change for form, change in self._forms(text) if form in where), None)
        return _loosely(text, where) if exact is None else exact

    def _forms(self, text: str) -> Iterator[tuple[str, str]]:
        """How a text may stand in a row, and what was done to it then; half a character can't stand there."""
        if not text.isascii() and _HALF.search(text):
            return
        yield text, ""
        yield self._text(self.backend.encode(text, add_special_tokens=False).ids), ""
        yield text.strip(), "trims"
        yield self._text(self.backend.encode(text.strip(), add_special_tokens=False).ids).strip(), "trims"
        yield json.dumps(text, ensure_ascii=False)[1:-1], "escapes"

    def _text(self, ids: list[int]) -> str:
        return str(self.backend.decode(ids, skip_special_tokens=False))


def _loosely(text: str, where: str) -> str | None:
    """Whether a text stands in another but for blanks and backslashes."""
    squeezed = _squeezed(where)
    for form in (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]):
        if _squeezed(form) in squeezed:
            return "spaces or escapes"
    return None


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


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
