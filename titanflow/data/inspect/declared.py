"""Compares what a config declares of its files with the first rows of the first file: in the plan, in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.chat_columns import required_columns
from titanflow.config.keys.training import RENDERED_KINDS, Data
from titanflow.data.files.local_files import KEY, local_files
from titanflow.data.inspect.chat_columns import has_conversations
from titanflow.data.inspect.head import Head, read_head
from titanflow.data.inspect.text_columns import column_names
from titanflow.data.pairs.layout import format_of

BYTES = 1 << 16
"""A plan reads about so much of a file."""


def check_declared(data: Mapping[str, Any]) -> None:
    """Refuses files whose first rows haven't the declared columns, before anything is prepared.

    Mistakes of single rows are found when all of them are read.

    Raises:
        DataError: says which columns there are.
    """
    if not data.get("path") or data["kind"] == "evals":
        return
    file = local_files(data["path"]).files[0]
    try:
        head = read_head(file, BYTES)
    except DataError:
        # The reading of the whole file says where and why.
        return
    (_check_chats if data["kind"] in RENDERED_KINDS else _check_text)(file, head, data)


def _check_text(file: Path, head: Head, data: Mapping[str, Any]) -> None:
    rows, column = [row for _, row in head.rows], data["text_column"]
    if head.is_text or not rows or any(column in row for row in rows):
        return
    hint = "set data.text_column to one of them"
    if has_conversations(rows):
        hint = "these are conversations: set data.kind: chat, in an sft module"
    message = f"{file} has no column {column!r}; it has: {', '.join(column_names(rows))}"
    raise DataError(Problem(message, "data.text_column", hint=hint))


def _check_chats(file: Path, head: Head, data: Mapping[str, Any]) -> None:
    if head.is_text:
        expected = "conversations: .jsonl, .json, .parquet, .csv or .tsv"
        raise DataError(Problem(f"{file} is plain text", KEY, expected=expected))
    config = Data(**data)
    missing = [format_of(config).missing(row) for _, row in head.rows]
    if missing and all(len(one) == len(required_columns(config)) for one in missing):
        raise DataError(missing[0])
