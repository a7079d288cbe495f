"""Packed rows made by hand."""

import numpy as np

from titanflow.data.prepared import IGNORE_INDEX, Row

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
