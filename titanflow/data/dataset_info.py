"""``dataset.json``: describes a folder of prepared rows, and accounts for the rows that it lacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.training import Data
from titanflow.data.files.local_files import Ending
from titanflow.files.own_files import read_mapping, readable
from titanflow.runs.contract import DATASET_FILE

if TYPE_CHECKING:
    from titanflow.data.files.file_counts import FileCounts


@dataclass(frozen=True)
class DatasetInfo:
    """The contents of ``dataset.json``.

    ``tokens`` counts all tokens, ``trained_tokens`` those with a label, ``bytes`` the UTF-8 bytes of the
    source text. ``rows`` and ``seq_len`` are None for text: any ``seq_len`` cuts the same stream into its own
    rows. ``longest`` is the longest document's number of tokens. ``dropped`` counts left-out rows by reason, and
    ``dropped_rows`` says where the first ones of each reason stand.

    ``files`` accounts for each file's rows; ``passed_over`` counts other files in its folders, by reason. If the source
    holds rows out, ``part`` names the part of these rows, and ``elsewhere`` counts the rows of the others.

    A pair is one document, ``longest`` its longer side, and ``seq_len`` has room for one side of it.

    For chats and pairs: ``ends_of_turn`` are the tokens that end trained turns, the most frequent first, ``proved``
    counts the rows whose mask was proved, ``fill`` is the share of the rows' places that hold a token. ``unread``
    counts columns and message keys that nothing reads, ``notes`` the rows in which the template changes a text, and
    those that are :data:`titanflow.runs.contract.CUT`.
    ``mixture`` has a mixture's settings and its members' folders.
    """

    kind: Literal["text", "chat", "pairs", "mixture"]
    name: str
    fingerprint: str
    documents: int
    tokens: int
    trained_tokens: int
    bytes: int
    dtype: str
    vocab_size: int
    pad_id: int
    rows: int | None = None
    seq_len: int | None = None
    longest: int = 0
    ends_of_turn: list[int] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_rows: dict[str, list[str]] = field(default_factory=dict)
    packing: str | None = None
    fill: float | None = None
    proved: int = 0
    template: str = ""
    turns: str = ""
    files: list[FileCounts] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    mixture: dict[str, Any] = field(default_factory=dict)
    part: str = ""
    elsewhere: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)


def is_complete(folder: Path | str) -> bool:
    """Whether a folder of rows or evaluation items is finished."""
    return (Path(folder) / DATASET_FILE).is_file()


def read_info(folder: Path | str) -> DatasetInfo:
    """The ``dataset.json`` of a folder of rows.

    Raises:
        DataError: the folder isn't there, was never finished, or its file is damaged.
    """
    facts = read_facts(folder)
    with readable(Path(folder) / DATASET_FILE, hint_of(folder)):
        return DatasetInfo(**facts)


def read_facts(folder: Path | str) -> dict[str, Any]:
    """The ``dataset.json`` of a folder of rows or evaluation items as it stands.

    Raises:
        DataError: see :func:`read_info`.
    """
    path = Path(folder) / DATASET_FILE
    if not path.is_file():
        hint = "prepare it first: `titanflow run` does, or `python -m titanflow.data.prepare run.yaml`"
        raise DataError(Problem(f"{folder} holds no prepared data: {DATASET_FILE} is missing", hint=hint))
    return read_mapping(path, hint_of(folder))


def hint_of(folder: Path | str) -> str:
    """What to do about a damaged folder."""
    return f"remove the folder {folder}: the next run prepares its data again"


def account(info: DatasetInfo, data: Data) -> list[str]:
    """The log's lines about a dataset that was prepared from files."""
    rows = sum(file["rows"] for file in info.files)
    dropped = "".join(f", {count} left out: {reason}" for reason, count in info.dropped.items())
    part = f" in the {info.part} part" if info.part else ""
    elsewhere = "".join(f", {count} {where}" for where, count in info.elsewhere.items())
    elsewhere = f"; elsewhere{elsewhere[1:]}" if elsewhere else ""
    lines = [f"{info.name}: {len(info.files)} files, {rows} rows, {info.documents} documents{part}{dropped}{elsewhere}"]
    if data.path and info.passed_over:
        others = ", ".join(f"{count} × {reason}" for reason, count in sorted(info.passed_over.items()))
        lines.append(f"{info.name}: files passed over: {others}")
    plain = sum(Ending.of(Path(file["name"])).format == "text" for file in info.files) if data.path else 0
    if plain and data.document == "file":
        settings = "data.document: paragraph or line divides them"
        lines.append(f"{info.name}: {plain} of plain text, each file one document; {settings}")
    return lines
