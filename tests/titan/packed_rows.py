"""Packed rows made by hand."""

from pathlib import Path

import numpy as np

from titanflow.data.prepared import IGNORE_INDEX, PreparedRows, Row

PAD = 3


def packed_row(documents: list[Row], seq_len: int) -> Row:
    """Documents one after the other, and the padding as a document of its own."""
    count = sum(len(document.input_ids) for document in documents)
    padding = seq_len - count
    columns = {
        "input_ids": [*(document.input_ids for document in documents), np.full(padding, PAD)],
        "labels": [*(document.labels for document in documents), np.full(padding, IGNORE_INDEX)],
        "positions": [np.arange(len(document.input_ids)) for document in documents] + [np.arange(padding)],
    }
    return Row(**{name: np.concatenate(parts).astype(np.int64) for name, parts in columns.items()})


def unpadded(row: Row) -> Row:
    """A row up to its last label: a whole document, as the prepared rows of chats end with one."""
    end = int(np.flatnonzero(row.labels != IGNORE_INDEX)[-1]) + 1
    return Row(row.input_ids[:end], row.labels[:end])


class PackedRows:
    """A prepared folder's chats, as many in a row as fit, in the order in which they stand."""

    def __init__(self, rows: PreparedRows, seq_len: int) -> None:
        packs: list[list[Row]] = [[]]
        for index in range(len(rows)):
            document = unpadded(rows.row(index))
            if sum(len(one.input_ids) for one in packs[-1]) + len(document.input_ids) > seq_len:
                packs.append([])
            packs[-1].append(document)
        self.rows = [packed_row(pack, seq_len) for pack in packs]

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        return self.rows[index]


def pack_what_is_opened() -> None:
    """Lets stages of this process open a prepared folder of chats packed."""
    opened = PreparedRows.open

    def open_packed(folder: Path | str, seq_len: int) -> PackedRows | PreparedRows:
        rows = opened(folder, seq_len)
        return PackedRows(rows, seq_len) if rows.info.kind == "chat" else rows

    PreparedRows.open = staticmethod(open_packed)  # type: ignore[assignment, method-assign]
