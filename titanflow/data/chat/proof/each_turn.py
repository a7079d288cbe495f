"""`chat.turns: each`: makes a row for every trained turn, with the history before it and nothing after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titanflow.config.keys.training import Data
from titanflow.data.chat.layout import ChatFormat, Conversation
from titanflow.data.chat.source import decoded
from titanflow.data.files.sources import Source
from titanflow.data.parts.mapped import list_lengths, list_values, map_rows
from titanflow.data.parts.work import Work

_BATCH = 512


@dataclass(frozen=True)
class EachTurn:
    """A source with a row for each trained turn; ``lasts`` are the numbers of their messages, int64 ``[rows]``."""

    source: Source
    lasts: NDArray[np.int64]

    @classmethod
    def of(cls, source: Source, data: Data, work: Work) -> EachTurn:
        """Repeats each row for its trained turns; a row that can't be read, or has none, stays once."""
        found = map_rows(source.rows, _last_messages, {"data": data}, work, _BATCH)
        rows = np.repeat(np.arange(len(source.rows)), list_lengths(found, "lasts"))
        lasts = np.concatenate(list(list_values(found, "lasts"))) if len(rows) else np.empty(0, np.int64)
        numbers = None if source.numbers is None else source.numbers[rows]
        if numbers is None and not source.has_files:
            numbers = rows
        return cls(replace(source, rows=source.rows.select(rows), numbers=numbers), lasts)


def until(conversation: Conversation, last: int) -> Conversation:
    """A conversation up to message ``last``, or the whole if that is -1."""
    return replace(conversation, messages=conversation.messages[: last + 1]) if last >= 0 else conversation


def _last_messages(batch: dict[str, list[Any]], numbers: list[int], data: Data) -> dict[str, list[Any]]:
    layout = ChatFormat.of(data)
    return {"lasts": [np.array(_trained(layout.conversation(row)) or [-1], np.int64) for row in decoded(batch)]}


def _trained(conversation: Conversation) -> list[int]:
    if conversation.problems:
        return []
    messages = enumerate(conversation.messages)
    return [number for number, one in messages if one["role"] == "assistant" and one.get("train", True)]
