"""The rows of a held-out part as evaluation items: one JSON object per line, as in the source file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.training import Data
from titanflow.data.chat.layout import ChatFormat, Conversation
from titanflow.data.chat.source import read_rows
from titanflow.data.chat.tokenise import MALFORMED
from titanflow.data.files.file_counts import check_sums, count_files, totals
from titanflow.data.files.sources import Source, problems_error
from titanflow.data.files.text_source import TEXT
from titanflow.data.files.tokenise_text import BLANK
from titanflow.data.held_out.eval_items import ITEMS_FILE
from titanflow.data.held_out.row_hash import chat_hash, text_hash
from titanflow.data.prepared import HASHES_FILE, PLACES_FILE
from titanflow.runs.contract import DATASET_FILE

MESSAGES = "messages"
"""The column with a conversation's turns."""


def write_held_out_items(source: Source, data: Data, fingerprint: str, folder: Path) -> None:
    """Writes the rows of a part as items, and their ``dataset.json``.

    A document becomes ``{"text": …}``; a conversation keeps all columns of its row, and has its turns as ``messages``,
    whatever its layout: so that one task can ask about all of them. Rows that training would refuse are refused, or
    left out and counted, by ``data.malformed``.
    """
    reasons, sizes, hashes, problems = [], [], [], list[Problem]()
    with (folder / ITEMS_FILE).open("w", encoding="utf-8") as file:
        for number, (row, row_hash, fault) in enumerate(_rows(source, data)):
            line = json.dumps(row, ensure_ascii=False, default=str)
            if isinstance(fault, Problem) and data.malformed == "error":
                problems.append(replace(fault, origin=source.origin(number)))
            if not fault:
                file.write(line + "\n")
                hashes.append(row_hash)
            reasons.append(MALFORMED if isinstance(fault, Problem) else fault)
            sizes.append(0 if fault else len(line.encode()))
    if problems:
        raise problems_error(problems)
    if not hashes:
        raise DataError(Problem(f"none of the {len(reasons)} rows of {data.name} can be an item", "data"))
    given = np.array([not reason for reason in reasons])
    files = count_files(source, np.array(reasons, object), np.array(sizes, np.int64))
    facts: dict[str, Any] = {"bytes": sum(sizes), "dropped": totals(file["dropped"] for file in files)}
    facts["elsewhere"] = totals(file["elsewhere"] for file in files)
    check_sums(files, len(hashes), facts["bytes"], facts["dropped"], facts["elsewhere"])
    np.save(folder / PLACES_FILE, source.places()[given])
    np.save(folder / HASHES_FILE, np.array(hashes, np.uint64))
    described: dict[str, Any] = {"kind": "evals", "name": data.name, "fingerprint": fingerprint, "part": data.part}
    described |= {"items": {"items": len(hashes)}, **facts, "files": files, "passed_over": source.passed_over}
    (folder / DATASET_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    left_out = "".join(f", {count} left out: {reason}" for reason, count in facts["dropped"].items())
    print(f"{data.name}: {len(hashes)} items of the {data.part} part{left_out}", file=sys.stderr, flush=True)


def _rows(source: Source, data: Data) -> Iterator[tuple[Any, int, Problem | str]]:
    """Each row with its hash and the reason why it can't be an item: a problem, :data:`BLANK`, or empty."""
    if data.kind == "chat":
        layout = ChatFormat.of(data)
        for row in read_rows(source.rows):
            conversation = layout.conversation(row)
            faults = conversation.problems or _unwritable(row)
            item = row if faults else _with_messages(row, conversation)
            yield item, chat_hash(conversation, row), faults[0] if faults else ""
    else:
        for text in source.rows[TEXT]:
            yield {TEXT: text}, text_hash(text), "" if text.strip() else BLANK


def _with_messages(row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
    """The row with role and content of each turn as ``messages``, unless they stand there as they are read."""
    turns = [_said(turn) for turn in conversation.messages]
    given = row.get(MESSAGES)
    is_same = isinstance(given, list) and list(map(_said, given)) == turns
    return row if is_same else {**row, MESSAGES: turns}


def _said(turn: Any) -> dict[str, Any]:
    return {key: turn.get(key) for key in ("role", "content")} if isinstance(turn, dict) else {}


def _unwritable(row: Any) -> list[Problem]:
    """Problems with columns, trained on or not, that UTF-8 can't hold: they contain a lone surrogate."""
    problems = []
    for name, value in row.items() if isinstance(row, dict) else [("row", row)]:
        try:
            f"{name}{json.dumps(value, ensure_ascii=False, default=str)}".encode()
        except UnicodeEncodeError as error:
            found = f"half a character ({error.object[error.start]!r})"
            problems.append(Problem(found, f"column {name!a}", expected="text that UTF-8 can hold"))
    return problems
