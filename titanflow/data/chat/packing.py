"""Packs documents into rows, so that few tokens are padding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_fit(lengths: NDArray[np.int64], seq_len: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Packs documents by best fit, the longest first: each goes to the fullest row that still has room for it.

    The result depends on the lengths alone. It has at most 11/9 of the best packing's rows and four more (Johnson,
    Demers, Ullman, Garey and Graham 1974, "Worst-case performance bounds for simple one-dimensional packing
    algorithms").

    ``lengths``, ``[documents]``, are the documents' tokens, each from 1 to ``seq_len``, the tokens of a row.

    Returns:
        ``members``, ``[documents]``: the documents' numbers, row after row, and ``offsets``, ``[rows + 1]``: where in
        ``members`` each row starts and the last ends.
    """
    if len(lengths) and not (lengths.min() >= 1 and lengths.max() <= seq_len):
        raise ValueError(f"documents of 1 to {seq_len} tokens can be packed, not {lengths.min()} to {lengths.max()}")
    rows: list[list[int]] = []
    room: list[list[int]] = [[] for _ in range(seq_len + 1)]  # room[n]: the rows with room for exactly n more tokens
    with_room = 0  # bit n: room[n] has a row; so the fullest row with enough room is found without a search
    for document in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[document])
        if fitting := with_room >> length:
            left = length + (fitting & -fitting).bit_length() - 1
            row = room[left].pop()
            if not room[left]:
                with_room &= ~(1 << left)
            rows[row].append(document)
        else:
            row, left = len(rows), seq_len
            rows.append([document])
        left -= length
        if left:
            room[left].append(row)
            with_room |= 1 << left
    members = np.fromiter((document for row in rows for document in row), np.int64, len(lengths))
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
    return members, offsets
