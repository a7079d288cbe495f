"""Reads rows of conversations into one form: messages with a role and content, and the tools offered.

A data config declares which of four layouts the rows have, with its columns and roles:

- ``messages``: OpenAI's list of ``{role, content}``, with ``tool_calls`` and a column ``tools``;
- ``sharegpt``: a list of ``{from, value}``, with ``function_call`` and ``observation``;
- ``alpaca``: ``instruction``, ``input``, ``output``, and ``history`` as pairs of texts;
- ``prompt_completion``: two texts, or two lists of messages; only the second is trained.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.keys.chat_columns import CALL, COLUMNS, REQUIRED
from titanflow.config.keys.training import Data
from titanflow.data.chat.calls import parsed, tools_of
from titanflow.data.chat.check import chat_problems, shown
from titanflow.data.chat.keys import MASKS, MEDIA, THOUGHTS, UNCLEAR, lost_of_row, refused, thoughts, trains
from titanflow.data.chat.message import read_message

LEFT_OUT = "(left out)"
"""Suffix of a key that is unread because ``data.leave_out`` names it."""
_TOOLS = "functions"
"""OpenAI's older name for tools."""

ROLES: Mapping[str, Mapping[str, str]] = {
    "messages": {"developer": "system"},
    "sharegpt": {"human": "user", "gpt": "assistant", CALL: CALL, "observation": "tool"},
    "alpaca": {},
    "prompt_completion": {"developer": "system"},
}
"""Each layout's names of roles other than system, user, assistant and tool."""


@dataclass(frozen=True)
class Unreadable:
    """A row that can't be read as JSON, and why."""

    reason: str


@dataclass(frozen=True)
class Conversation:
    """One conversation; it can be trained on if ``problems`` is empty.

    An assistant's message may have ``tool_calls`` (OpenAI's, with the arguments as a mapping) and thoughts as
    ``reasoning_content``. Any message may have ``train: false``, which keeps it in the context and out of the loss.
    ``unread`` counts the columns and keys of messages that nothing here understands.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    problems: list[Problem] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ChatFormat:
    """A layout with its columns and roles resolved."""

    layout: str
    columns: Mapping[str, str]
    roles: Mapping[str, str]
    leave_out: frozenset[str] = frozenset()

    @classmethod
    def of(cls, data: Data) -> ChatFormat:
        name = data.chat_format
        return cls(name, {**COLUMNS[name], **data.columns}, {**ROLES[name], **data.roles}, frozenset(data.leave_out))

    def conversation(self, row: Any) -> Conversation:
        """Reads one row. The problems have no origin: only the caller knows the file and line."""
        if isinstance(row, Unreadable):
            return Conversation([], problems=[Problem(row.reason, "row", expected="a JSON object a line")])
        if not isinstance(row, dict):
            return Conversation([], problems=[Problem(f"the row isn't a mapping but {type(row).__name__}", "row")])
        reading = _Reading(self, row)
        messages, tools = reading.messages(), reading.tools()
        problems = reading.problems or chat_problems(messages)
        return Conversation(messages if isinstance(messages, list) else [], tools, problems, reading.unread)

    def missing(self, row: Mapping[str, Any]) -> list[Problem]:
        """A problem for each required column that a row lacks."""
        return missing_columns([self.columns[name] for name in REQUIRED[self.layout]], row, COLUMNS)


def missing_columns(required: list[str], row: Mapping[str, Any], layouts: Iterable[str]) -> list[Problem]:
    """A problem for each column that a row lacks; ``layouts`` are the names that ``data.chat_format`` may have."""
    found = ", ".join(str(key) for key in row) or "nothing"
    hint = f"set data.columns, or data.chat_format to one of {', '.join(layouts)}"
    return [
        Problem(f"there is no column {column!r}; the row has: {found}", "data.columns", hint=hint)
        for column in required
        if column not in row
    ]


def listed(value: Any, role: str) -> Any:
    """A list of messages if a value is one, or one message, or the JSON text of either; otherwise the value.

    ``role`` is the key of a message's role. CSV files have lists as JSON texts only, and a text that merely looks like
    one stays a text.
    """
    found = value
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(found, dict):
        found = [found]
    is_list = isinstance(found, list) and found and all(isinstance(one, dict) and role in one for one in found)
    return found if is_list else value


class _Reading:
    """Reads one row and collects its problems and unread keys."""

    def __init__(self, layout: ChatFormat, row: Mapping[str, Any]) -> None:
        self.layout = layout
        self.columns = layout.columns
        self.unread: Counter[str] = Counter()
        self.row = self._left(row)
        self.problems = layout.missing(self.row)
        self.names = {self.columns[name]: name for name in ("role", "content", "train") if name in self.columns}

    def messages(self) -> Any:
        """The row's messages; the caller refuses anything but a list."""
        if self.problems:
            return []
        rest = self._rest()
        self.problems += refused(rest, "")
        is_trained = trains(rest, "", self.problems)
        messages = self._of_layout(rest)
        self.problems += lost_of_row(rest)
        known = (*MASKS, *MEDIA, *UNCLEAR, _TOOLS)
        self.unread.update(key for key, value in rest.items() if key not in known and value not in (None, "", [], {}))
        if not isinstance(messages, list):
            return messages
        if system := self._text("system"):
            messages = [{"role": "system", "content": system}, *messages]
        if is_trained is not False:
            return messages
        return [{**one, "train": False} if isinstance(one, dict) else one for one in messages]

    def tools(self) -> list[dict[str, Any]] | None:
        name = self.columns["tools"]
        given = [key for key in dict.fromkeys((name, _TOOLS)) if self.row.get(key)] or [name]
        if len(given) > 1:
            self.problems.append(Problem(f"the row has {name} and {_TOOLS}", name, expected="one of them"))
        return tools_of(self.row.get(given[0]), given[0], self.problems)

    def _rest(self) -> dict[str, Any]:
        """The columns that don't belong to the layout; the mask's column gets the name ``train``."""
        known = {column for name, column in self.columns.items() if name not in ("role", "content", "train")}
        train = self.columns["train"]
        return {"train" if name == train else str(name): self.row[name] for name in self.row if name not in known}

    def _value(self, name: str) -> Any:
        return self.row.get(self.columns[name]) if name in self.columns else None

    def _text(self, name: str) -> str:
        """An optional text of the row; empty if it has none."""
        value = self._value(name)
        if value is not None and not isinstance(value, str):
            found = f"found {shown(value)}, which is {type(value).__name__}"
            self.problems.append(Problem(found, self.columns[name], expected="text"))
        return value if isinstance(value, str) else ""

    def _of_layout(self, rest: dict[str, Any]) -> Any:
        if self.layout.layout == "alpaca":
            return self._with_thoughts(self._alpaca(), rest)
        if self.layout.layout == "prompt_completion":
            return self._prompt_completion(rest)
        return self._list(self._value("messages"), self.columns["messages"])

    def _list(self, messages: Any, column: str) -> Any:
        if isinstance(messages, str):
            messages = parsed(messages, column, self.problems)
        if not isinstance(messages, list):
            return messages
        return [self._message(one, f"{column}[{index}]") for index, one in enumerate(messages)]

    def _message(self, message: Any, key: str) -> Any:
        left = self._left(message, f"{key.partition('[')[0]}[].") if isinstance(message, dict) else message
        return read_message(left, self.names, self.layout.roles, key, self.problems, self.unread)

    def _left(self, found: Mapping[str, Any], place: str = "") -> Mapping[str, Any]:
        """A row or message without the keys that ``data.leave_out`` names."""
        if not (out := [name for name in found if name in self.layout.leave_out]):
            return found
        self.unread.update(f"{place}{name} {LEFT_OUT}" for name in out if found[name] is not None)
        return {name: value for name, value in found.items() if name not in out}

    def _with_thoughts(self, messages: list[dict[str, Any]], rest: dict[str, Any]) -> list[dict[str, Any]]:
        """The messages, with the thoughts of a column in the last answer."""
        said = thoughts(rest, "", self.problems)
        for name in THOUGHTS:
            rest.pop(name, None)
        return [*messages[:-1], {**messages[-1], THOUGHTS[0]: said}] if said and messages else messages

    def _alpaca(self) -> list[dict[str, Any]]:
        history = self._value("history") or []
        if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
            self.problems.append(Problem("a turn of the history isn't a pair", self.columns["history"]))
            return []
        asked = self._value("instruction")
        if (extra := self._text("input")) and isinstance(asked, str):
            asked = f"{asked}\n{extra}" if asked else extra
        turns: list[dict[str, Any]] = []
        for question, answer in [*history, (asked, self._value("output"))]:
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return turns

    def _prompt_completion(self, rest: dict[str, Any]) -> list[Any]:
        """Prompt and completion may each be a text or a list of messages; only the completion is trained."""
        role = self.columns["role"]
        prompt, completion = (listed(self._value(name), role) for name in ("prompt", "completion"))
        asked: Any = [{"role": "user", "content": prompt}]
        if isinstance(prompt, list):
            read = self._list(prompt, self.columns["prompt"])
            asked = [{**one, "train": False} if isinstance(one, dict) else one for one in read]
        if isinstance(completion, list):
            return [*asked, *self._list(completion, self.columns["completion"])]
        return self._with_thoughts([*asked, {"role": "assistant", "content": completion}], rest)
