"""What a look at one file found: its format, its columns, its rows, and which of them are malformed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.keys.training import Data
from titanflow.data.chat.layout import ChatFormat, Conversation
from titanflow.data.files.file_rows import origin_of, paragraphs
from titanflow.data.files.json_rows import text_fault
from titanflow.data.inspect.chat_columns import ChatColumns
from titanflow.data.inspect.head import Head
from titanflow.data.inspect.text_columns import column_names

UNREAD = "unread"
"""A column that nothing is read from."""
TURN = 6
"""Tokens that a template writes around a turn, about: its marks, the role, a line break."""


@dataclass(frozen=True)
class FileFacts:
    """One file, as far as it was looked at.

    Attributes:
        kind: its format, as :class:`titanflow.data.inspect.head.Head` has it.
        rows: documents or conversations of the whole file; ``size`` their bytes; estimated unless ``is_whole``.
        columns: each column with what it is taken for.
        roles: the roles of its messages, and how often each occurs.
        malformed: the rows that can't be trained on, each with its file and line.
        lengths: the bytes of each row that can, and ``turns`` those of a conversation.
        texts: the text of each such row.
    """

    file: Path
    kind: str
    rows: int
    size: int
    is_whole: bool
    columns: dict[str, str] = field(default_factory=dict)
    roles: Counter[str] = field(default_factory=Counter)
    malformed: list[Problem] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def tokens(self, a_token: float) -> list[float]:
        """The tokens of each row, if one has so many bytes."""
        turns = self.turns or [0] * len(self.lengths)
        return [length / a_token + TURN * count for length, count in zip(self.lengths, turns, strict=True)]


def text_facts(file: Path, head: Head, column: str, document: str) -> FileFacts:
    """A file of documents, in ``column`` if it is a table, else each a file, paragraph or line."""
    texts, malformed = list[str](), list[Problem]()
    for place, text in _documents(head, column, document):
        if fault := text_fault(text):
            malformed.append(Problem(fault, f"column {column!r}", origin_of(file, head.unit, place), "a text"))
        elif text.strip():
            texts.append(text)
    columns = {name: "text" if name == column else UNREAD for name in _columns(head)}
    return _facts(file, head, texts, malformed, columns)


def chat_facts(file: Path, head: Head, declared: ChatColumns) -> FileFacts:
    """A file of conversations."""
    data = Data(kind="chat", chat_format=declared.chat_format, columns=declared.columns, roles=declared.roles)  # type: ignore[arg-type]
    layout, roles = ChatFormat.of(data), Counter[str]()
    texts, turns, malformed = list[str](), list[int](), list[Problem]()
    for place, row in head.rows:
        conversation = layout.conversation(row)
        if conversation.problems:
            malformed.append(replace(conversation.problems[0], origin=origin_of(file, head.unit, place)))
            continue
        roles.update(message["role"] for message in conversation.messages)
        texts.append("\n".join(_said(conversation)))
        turns.append(len(conversation.messages))
    names = declared.names
    columns = {name: names.get(name, UNREAD) for name in _columns(head)}
    return replace(_facts(file, head, texts, malformed, columns), roles=roles, turns=turns)


def _said(conversation: Conversation) -> Iterator[str]:
    """All that a template writes of a conversation, about: tools and calls often take more tokens than what is said."""
    for one in conversation.tools or ():
        yield json.dumps(one, ensure_ascii=False)
    for message in conversation.messages:
        for part in ("reasoning_content", "content"):
            yield str(message.get(part) or "")
        for call in message.get("tool_calls") or ():
            yield json.dumps(call["function"], ensure_ascii=False)


def _facts(file: Path, head: Head, texts: list[str], malformed: list[Problem], columns: dict[str, str]) -> FileFacts:
    lengths = [len(text.encode()) for text in texts]
    looked = len(lengths) + len(malformed)
    whole = head.whole[0] if not head.is_text else looked * head.whole[1] // max(1, head.size)
    malformed = head.broken + malformed
    rows = looked if head.is_whole else max(looked, whole)
    return FileFacts(
        file=file,
        kind=head.kind,
        rows=rows,
        size=sum(lengths) if head.is_whole else sum(lengths) * rows // max(1, looked),
        is_whole=head.is_whole,
        columns=columns,
        malformed=malformed,
        lengths=lengths,
        texts=texts,
    )


def _documents(head: Head, column: str, document: str) -> Iterator[tuple[int, Any]]:
    for place, row in head.rows:
        if not head.is_text:
            yield place, row.get(column)
        elif document == "paragraph":
            yield from paragraphs(row)
        elif document == "line":
            yield from enumerate(row.split("\n"), 1)
        else:
            yield place, row


def _columns(head: Head) -> list[str]:
    return [] if head.is_text else column_names(row for _, row in head.rows)
