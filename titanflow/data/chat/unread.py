"""Counts what rows say that nothing reads, and what their template writes differently, for the log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from titanflow.config.keys.training import Data
from titanflow.data.chat.keys import lost_of_messages, reads
from titanflow.data.chat.layout import LEFT_OUT, Conversation

if TYPE_CHECKING:
    from datasets import Dataset

    from titanflow.data.dataset_info import DatasetInfo


def with_what_is_lost(conversation: Conversation, template: str) -> Conversation:
    """Adds a problem for each key of the messages that says something the template never reads."""
    if conversation.problems or not conversation.unread:
        return conversation
    return replace(conversation, problems=lost_of_messages(conversation.messages, template))


def row_said(conversation: Conversation, notes: Sequence[str], template: str) -> str:
    """A row's unread keys with their counts, and its notes, as JSON; empty if there are none.

    A message's key counts as read if the template reads it.
    """
    unread = {
        name: count
        for name, count in conversation.unread.items()
        if not ("[]." in name and reads(template, name.partition("[].")[2]))
    }
    return json.dumps([unread, list(notes)], sort_keys=True) if unread or notes else ""


def said_in_all(encoded: Dataset) -> tuple[dict[str, int], dict[str, int]]:
    """All rows' unread keys with their counts, and the notes with the number of rows that have each.

    The column ``said`` of ``encoded`` is made by :func:`row_said`.
    """
    unread: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for table in encoded.select_columns(["said"]).with_format("arrow").iter(batch_size=4096):
        for found in table["said"].value_counts().to_pylist():
            keys, told = json.loads(found["values"] or "[{}, []]")
            for key, count in keys.items():
                unread[key] += count * found["counts"]
            notes.update(dict.fromkeys(told, found["counts"]))
    return dict(sorted(unread.items())), dict(sorted(notes.items()))


def unread_lines(info: DatasetInfo, data: Data) -> list[str]:
    lines = []
    if info.unread:
        counts = ", ".join(f"{count:,} × {name}" for name, count in info.unread.items())
        lines.append(f"{info.name}: nothing reads: {counts}")
    passed = {name.removesuffix(f" {LEFT_OUT}").rpartition("[].")[2] for name in info.unread if LEFT_OUT in name}
    if absent := [name for name in data.leave_out if name not in passed]:
        lines.append(f"{info.name}: data.leave_out has no effect: no row has {', '.join(absent)}")
    if info.notes:
        lines.append(f"{info.name}: {', '.join(f'{note} (in {count:,} rows)' for note, count in info.notes.items())}")
    return lines
