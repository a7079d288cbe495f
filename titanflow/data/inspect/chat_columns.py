"""Finds out how a file lays conversations out: in which of the known layouts, with which columns and roles."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from titanflow.config.keys.chat_columns import CALL, COLUMNS
from titanflow.data.chat.check import ROLES as KNOWN
from titanflow.data.chat.check import meant_role
from titanflow.data.chat.layout import ROLES
from titanflow.data.inspect.text_columns import column_names

LISTS = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog", "turns", "chosen")
"""Names of a column with a list of messages; an earlier one goes before a later one."""
ROLE_KEYS = ("role", "from", "speaker", "author", "sender", "who")
CONTENT_KEYS = ("content", "value", "text", "message", "body", "utterance")
"""Names of a message's keys."""
PROMPTS = ("prompt", "question", "query", "instruction", "input", "user", "human", "problem", "request")
COMPLETIONS = (
    *("completion", "answer", "response", "output", "assistant", "gpt", "bot"),
    *("reply", "solution", "target", "chosen"),
)
"""Names of the columns of a question and its answer; an earlier one goes before a later one."""
SYSTEMS = ("system", "system_prompt", "system_message")
FEW_ROLES = 6
"""A key of messages with at most so many different texts may be that of their roles."""


@dataclass(frozen=True)
class ChatColumns:
    """A declaration of conversations, as ``data`` has it; ``unknown`` counts roles that nobody can guess."""

    chat_format: str
    columns: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    found_roles: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)

    @property
    def names(self) -> dict[str, str]:
        """What each column of the file is taken for."""
        return {name: known for known, name in {**COLUMNS[self.chat_format], **self.columns}.items()}


def find_chat_columns(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], roles: Mapping[str, str]
) -> ChatColumns | None:
    """The layout of some rows; ``columns`` and ``roles`` are those that the user named. None if it can't be told."""
    names = {name.strip().lower(): name for name in reversed(column_names(rows))}
    found = _listed_pairs(rows, names, columns, roles) or _lists(rows, names, columns, roles)
    return found or _pairs(names, columns, roles)


def has_conversations(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The column with lists of messages, if there is one."""
    return next((name for name in column_names(rows) if _messages(rows, name)), None)


def _lists(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], columns: Mapping[str, str], roles: Mapping[str, str]
) -> ChatColumns | None:
    known = [names[name] for name in LISTS if name in names]
    asked = [columns["messages"]] if "messages" in columns else [*known, *names.values()]
    if "prompt" in columns or "instruction" in columns:
        return None
    column = next((name for name in asked if _messages(rows, name)), None)
    if column is None:
        return None
    messages = _messages(rows, column)
    role, content = _keys(messages, columns)
    if not role or not content:
        return None
    layout = "sharegpt" if (role, content) == ("from", "value") else "messages"
    found = {**columns, "messages": column, "role": role, "content": content, **_system(names, columns)}
    spoken = Counter(str(message[role]) for message in messages if message.get(role) is not None)
    return _declared(layout, found, roles, spoken)


def _listed_pairs(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], columns: Mapping[str, str], roles: Mapping[str, str]
) -> ChatColumns | None:
    """Questions with answers of which one is a list of messages: the answer's list alone would lose the question."""
    prompt, completion = _question_and_answer(names, columns)
    if prompt is None or completion is None or "messages" in columns:
        return None
    if any(_messages(rows, names[name]) for name in LISTS if name in names and names[name] != completion):
        return None
    answers = _messages(rows, completion)
    messages = [*_messages(rows, prompt), *answers]
    role, content = _keys(messages, columns)
    spoken = Counter(str(message[role]) for message in messages if message.get(role) is not None)
    if not role or not content or any(_asks(str(message.get(role)), roles) for message in answers):
        return None
    found = {**columns, "prompt": prompt, "completion": completion, "role": role, "content": content}
    return _declared("prompt_completion", {**found, **_system(names, columns)}, roles, spoken)


def _asks(role: str, roles: Mapping[str, str]) -> bool:
    return (roles.get(role) or ROLES["sharegpt"].get(role) or meant_role(role)) == "user"


def _question_and_answer(names: Mapping[str, str], columns: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The columns of a question and its answer, by the names that the user gave, or usual ones."""
    prompt = columns.get("prompt") or next((names[name] for name in PROMPTS if name in names), None)
    others = [names[name] for name in COMPLETIONS if name in names and names[name] != prompt]
    return prompt, columns.get("completion") or next(iter(others), None)


def _pairs(names: Mapping[str, str], columns: Mapping[str, str], roles: Mapping[str, str]) -> ChatColumns | None:
    """Questions with answers: Alpaca's three columns, or two."""
    is_alpaca = {"instruction", "output"} <= names.keys() or "instruction" in columns
    if is_alpaca and "prompt" not in columns:
        found = {known: names[known] for known in ("instruction", "input", "output") if known in names}
        return _declared("alpaca", {**found, **_system(names, columns), **columns}, roles, Counter())
    prompt, completion = _question_and_answer(names, columns)
    if prompt is None or completion is None:
        return None
    found = {"prompt": prompt, "completion": completion, **_system(names, columns), **columns}
    return _declared("prompt_completion", found, roles, Counter())


def _declared(layout: str, found: Mapping[str, str], roles: Mapping[str, str], spoken: Counter[str]) -> ChatColumns:
    """The declaration without what the layout says itself."""
    usual = COLUMNS[layout]
    renamed = {name: column for name, column in found.items() if name not in usual or usual[name] != column}
    known = {*KNOWN, CALL, *ROLES[layout], *roles}
    others = {role: meant_role(role) for role in spoken if role not in known}
    guessed = {role: meant for role, meant in others.items() if meant}
    return ChatColumns(layout, renamed, {**guessed, **roles}, spoken, [role for role in others if not others[role]])


def _system(names: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, str]:
    named = columns.get("system") or next((names[name] for name in SYSTEMS if name in names), None)
    return {"system": named} if named else {}


def _messages(rows: Sequence[Mapping[str, Any]], column: str) -> list[Mapping[str, Any]]:
    """The messages of a column's lists; empty if most of its values are no such list."""
    values = [row[column] for row in rows if row.get(column) is not None]
    lists = [found for value in values if (found := list(_list(value)))]
    return [message for found in lists for message in found] if 2 * len(lists) > len(values) else []


def _list(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        yield from value


def _keys(messages: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> tuple[str, str]:
    """The keys of a message's role and content: by their names, or else by what stands there."""
    there = Counter(name for message in messages for name, value in message.items() if isinstance(value, str | list))
    names = {name: {str(message.get(name)) for message in messages} for name in there}
    role = columns.get("role") or next((name for name in ROLE_KEYS if name in names), "")
    content = columns.get("content") or next((name for name in CONTENT_KEYS if name in names and name != role), "")
    if not role:
        few = [name for name, texts in names.items() if name != content and len(texts) <= FEW_ROLES < len(messages)]
        role = few[0] if len(few) == 1 else ""
    if not content:
        others = [name for name in names if name != role]
        content = max(others, key=lambda name: sum(map(len, names[name])), default="")
    return role, content
