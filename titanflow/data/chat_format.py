"""Conversations as people have them, read into one form: messages with a role and content, and the tools offered.

Four layouts are known, each declared by its columns and roles in a data config:

- ``messages``: OpenAI's list of ``{role, content}``, with ``tool_calls`` and a column ``tools``;
- ``sharegpt``: a list of ``{from, value}``, with ``function_call`` and ``observation``;
- ``alpaca``: ``instruction``, ``input``, ``output``, and ``history`` as pairs of texts;
- ``prompt_completion``: two texts, or two lists of messages of which only the second is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from titanflow.config.additions import Data
from titanflow.data.chat_check import chat_problems, shown
from titanflow.errors import DataError, Problem

CALL = "function_call"
"""A role whose content is the JSON of the functions that the assistant calls."""

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "messages": {"messages": "messages", "role": "role", "content": "content", "tools": "tools", "system": "system"},
    "sharegpt": {"messages": "conversations", "role": "from", "content": "value", "tools": "tools", "system": "system"},
    "alpaca": {
        **{"instruction": "instruction", "input": "input", "output": "output"},
        **{"system": "system", "history": "history"},
    },
    "prompt_completion": {"prompt": "prompt", "completion": "completion", "tools": "tools", "system": "system"},
}
"""What each layout calls its columns, and the keys of a message, unless ``data.columns`` says otherwise."""

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("messages",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
}
"""The columns without which a row is no conversation."""

ROLES: Mapping[str, Mapping[str, str]] = {
    "messages": {"developer": "system"},
    "sharegpt": {"human": "user", "gpt": "assistant", CALL: CALL, "observation": "tool"},
    "alpaca": {},
    "prompt_completion": {"developer": "system"},
}
"""Names of roles beside system, user, assistant and tool."""


@dataclass(frozen=True)
class Unreadable:
    """A row that could not even be read, and why."""

    reason: str


@dataclass(frozen=True)
class Conversation:
    """One conversation; ``problems`` says why it can't be trained on, and is empty where it can.

    An assistant's message may carry ``tool_calls`` (OpenAI's, with the arguments as a mapping), and any message
    ``train: false``, which keeps it in the context and out of the loss.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class ChatFormat:
    """A layout with its columns and roles resolved."""

    layout: str
    columns: Mapping[str, str]
    roles: Mapping[str, str]

    @classmethod
    def of(cls, data: Data) -> ChatFormat:
        """The layout that a data config declares."""
        return cls(
            data.chat_format,
            {**COLUMNS[data.chat_format], **data.columns},
            {**ROLES[data.chat_format], **data.roles},
        )

    def conversation(self, row: Any) -> Conversation:
        """Reads one row.

        The problems' origin is empty: the caller knows the file and line.
        """
        if isinstance(row, Unreadable):
            return Conversation([], problems=[Problem(row.reason, "row", expected="a JSON object a line")])
        if not isinstance(row, dict):
            return Conversation([], problems=[Problem(f"the row isn't a mapping but {type(row).__name__}", "row")])
        problems: list[Problem] = self.missing(row)
        messages: Any = [] if problems else self._messages(row, problems)
        tools = _tools(self._value(row, "tools"), self.columns.get("tools", "tools"), problems)
        if not problems:
            problems += chat_problems(messages)
        return Conversation(messages if isinstance(messages, list) else [], tools, problems)

    def missing(self, row: Mapping[str, Any]) -> list[Problem]:
        """The columns that a row of this layout must have and this one hasn't."""
        missing = [column for name in REQUIRED[self.layout] if (column := self.columns[name]) not in row]
        if not missing:
            return []
        found = ", ".join(str(key) for key in row) or "nothing"
        hint = f"set data.columns, or data.chat_format to one of {', '.join(COLUMNS)}"
        return [
            Problem(f"there is no column {column!r}; the row has: {found}", "data.columns", hint=hint)
            for column in missing
        ]

    def _value(self, row: Mapping[str, Any], name: str) -> Any:
        return row.get(self.columns[name]) if name in self.columns else None

    def _messages(self, row: Mapping[str, Any], problems: list[Problem]) -> Any:
        if self.layout == "alpaca":
            messages = self._alpaca(row, problems)
        elif self.layout == "prompt_completion":
            messages = self._prompt_completion(row, problems)
        else:
            messages = self._list(self._value(row, "messages"), self.columns["messages"], problems)
        if (system := self._text(row, "system", problems)) and isinstance(messages, list):
            return [{"role": "system", "content": system}, *messages]
        return messages

    def _text(self, row: Mapping[str, Any], name: str, problems: list[Problem]) -> str:
        """A text that a row may have; empty where it hasn't."""
        value = self._value(row, name)
        if value is not None and not isinstance(value, str):
            problems.append(
                Problem(f"found {shown(value)}, which is {type(value).__name__}", self.columns[name], "", "text")
            )
        return value if isinstance(value, str) else ""

    def _list(self, messages: Any, column: str, problems: list[Problem]) -> Any:
        if isinstance(messages, str):
            messages = _parsed(messages, column, problems)
        if not isinstance(messages, list):
            return messages
        return [self._message(one, f"{column}[{index}]", problems) for index, one in enumerate(messages)]

    def _message(self, message: Any, key: str, problems: list[Problem]) -> Any:
        if not isinstance(message, dict):
            return message
        names = {self.columns.get(name, name): name for name in ("role", "content")}
        read: dict[str, Any] = {}
        for name, value in message.items():
            # Of two keys that would be one, the declared one counts.
            is_other = name in names.values() and name not in names
            if (value is not None and not is_other) or name in names:
                read[names.get(name, str(name))] = value
        role = read.get("role")
        if isinstance(role, str):
            read["role"] = self.roles.get(role, role)
        if read.get("role") == CALL:
            read = {**read, "role": "assistant", "content": "", "tool_calls": read.get("content")}
        if read.get("tool_calls"):
            read["tool_calls"] = _calls(read["tool_calls"], f"{key}.tool_calls", problems)
        if isinstance(read.get("content"), list):
            read["content"] = _joined(read["content"])
        return _with_train(read, key, problems)

    def _alpaca(self, row: Mapping[str, Any], problems: list[Problem]) -> list[dict[str, Any]]:
        turns: list[dict[str, Any]] = []
        history = self._value(row, "history") or []
        if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
            problems.append(Problem("a turn of the history isn't a pair", self.columns["history"]))
            return turns
        asked = self._value(row, "instruction")
        if (extra := self._text(row, "input", problems)) and isinstance(asked, str):
            asked = f"{asked}\n{extra}" if asked else extra
        for question, answer in [*history, (asked, self._value(row, "output"))]:
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return turns

    def _prompt_completion(self, row: Mapping[str, Any], problems: list[Problem]) -> Any:
        prompt, completion = self._value(row, "prompt"), self._value(row, "completion")
        if isinstance(prompt, list) and isinstance(completion, list):
            asked = self._list(prompt, self.columns["prompt"], problems)
            context = [{**one, "train": False} if isinstance(one, dict) else one for one in asked]
            return [*context, *self._list(completion, self.columns["completion"], problems)]
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def check_declaration(data: Data, key: str = "data") -> None:
    """Refuses columns that the layout doesn't have and roles that nothing here renders.

    Raises:
        DataError: either of the two, all of them together.
    """
    known, roles = COLUMNS[data.chat_format], ("system", "user", "assistant", "tool", CALL)
    problems = [
        Problem(f"{data.chat_format} has no {name!r}", f"{key}.columns", expected=", ".join(known))
        for name in data.columns
        if name not in known
    ]
    problems += [
        Problem(f"{name!r} is given the role {role!r}", f"{key}.roles", expected=", ".join(roles))
        for name, role in data.roles.items()
        if role not in roles
    ]
    if problems:
        raise DataError(problems)


def _with_train(message: dict[str, Any], key: str, problems: list[Problem]) -> dict[str, Any]:
    """OpenAI's ``weight`` (0 or 1) as ``train``; anything between can't be a mask."""
    weight = message.pop("weight", 1)
    if weight not in (0, 1):
        problems.append(Problem(f"found {weight!r}", f"{key}.weight", expected="0 or 1"))
    train = message.pop("train", bool(weight))
    if not isinstance(train, bool):
        problems.append(Problem(f"found {train!r}", f"{key}.train", expected="true or false"))
    return message if train else {**message, "train": False}


def _calls(value: Any, key: str, problems: list[Problem]) -> list[dict[str, Any]]:
    """OpenAI's ``tool_calls`` with their arguments as a mapping, which is what templates render."""
    if isinstance(value, str):
        value = _parsed(value, key, problems)
    calls = []
    for call in value if isinstance(value, list) else [value]:
        inner = call.get("function", call) if isinstance(call, dict) else None
        if isinstance(inner, str):
            inner = _parsed(inner, key, problems)
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            if call is not None:
                problems.append(Problem(f"found {shown(call)}", key, expected='{"name": …, "arguments": {…}}'))
            continue
        arguments = inner.get("arguments")
        arguments = {} if arguments in (None, "") else arguments
        if isinstance(arguments, str):
            arguments = _parsed(arguments, f"{key}.arguments", problems)
        if arguments is not None and not isinstance(arguments, dict):
            problems.append(Problem(f"found {shown(arguments)}", f"{key}.arguments", expected="a JSON object"))
        function = {"name": inner["name"], "arguments": arguments}
        identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        calls.append({**identity, "type": "function", "function": function})
    return calls


def _tools(value: Any, key: str, problems: list[Problem]) -> list[dict[str, Any]] | None:
    """Function descriptions in OpenAI's form: ``{"type": "function", "function": {…}}``."""
    if isinstance(value, str):
        value = _parsed(value, key, problems) if value.strip() else None
    if not value:
        return None
    tools = value if isinstance(value, list) else [value]
    known = len(problems)
    tools = [_parsed(tool, key, problems) if isinstance(tool, str) else tool for tool in tools]
    if len(problems) > known:
        return None
    if wrong := [tool for tool in tools if not isinstance(tool, dict)]:
        problems.append(Problem(f"found {shown(wrong[0])}", key, expected="a list of function descriptions"))
        return None
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def _parsed(text: str, key: str, problems: list[Problem]) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.append(Problem(f"{shown(text)} isn't JSON: {error}", key))
        return None


def _joined(parts: list[Any]) -> Any:
    """OpenAI's content in parts, where all are text; anything else as it was, to be refused."""
    are_texts = all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts
    )
    return "".join(part["text"] for part in parts) if parts and are_texts else parts
