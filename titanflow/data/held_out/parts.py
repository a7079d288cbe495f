"""Divides a source by hash into rows for training, for choosing (dev) and for reported results (test).

The ``test`` rows have the lowest hashes and the ``dev`` rows the highest, so that neither part moves when the other's
size changes. A share is a limit for each row's hash; a number takes that many different rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.training import PARTS, Data, HeldOut, Part
from titanflow.data.chat.layout import ChatFormat
from titanflow.data.chat.source import decoded
from titanflow.data.files.sources import Source
from titanflow.data.files.text_source import TEXT
from titanflow.data.held_out.row_hash import BITS, chat_hash, pair_hash, text_hash
from titanflow.data.pairs.layout import PairFormat
from titanflow.data.parts.mapped import column_values, map_rows
from titanflow.data.parts.work import Work

if TYPE_CHECKING:
    from datasets import Dataset

DUPLICATE = "duplicate"
"""Why a held-out part leaves out a row: it already has an equal one."""


def part_of(source: Source, data: Data, work: Work) -> Source:
    """The rows of the part of ``source`` that ``data`` names; a held-out part keeps only the first of equal rows."""
    hashes = hash_rows(source.rows, data, work)
    parts = divide(hashes, data.held_out, data.name)
    wanted = data.part or "train"
    kept = parts == PARTS.index(wanted)
    elsewhere: dict[str, NDArray] = {part: parts == number for number, part in enumerate(PARTS) if part != wanted}
    if wanted != "train":
        _, first = np.unique(hashes, return_index=True)
        is_first = np.zeros(len(hashes), np.bool_)
        is_first[first] = True
        elsewhere[DUPLICATE], kept = kept & ~is_first, kept & is_first
    numbers = np.flatnonzero(kept)
    files = source.places()[:, 0]
    counts = {where: np.bincount(files[rows], minlength=len(source.files)) for where, rows in elsewhere.items()}
    rows = source.rows.select(numbers).flatten_indices(cache_file_name=work.cache_file())
    return replace(source, rows=rows, numbers=numbers, elsewhere=counts)


def divide(hashes: NDArray[np.uint64], held_out: HeldOut, name: str = "the source") -> NDArray[np.int8]:
    """The part of each row, as its number in :data:`PARTS`: int8 ``[rows]``. No part may be empty."""
    different = np.unique(hashes)
    parts = np.zeros(len(hashes), np.int8)
    asked = {part: value for part in ("dev", "test") if (value := getattr(held_out, part)) is not None}
    for part, value in asked.items():
        if isinstance(value, int) and value > len(different):
            raise _refused(part, f"found {value}, and {name} has {len(different)} different rows")
    taken = sum(_count(part, value, different) for part, value in asked.items())
    if taken >= len(different):
        found = " and ".join(f"{value} for {part}" for part, value in asked.items())
        message = f"{found} take all of the {len(different)} different rows of {name}: none is left to train on"
        raise _refused("", message)
    for part, value in asked.items():
        count = _count(part, value, different)
        if not count:
            message = f"found {value}, which takes none of {name}'s {len(different)} different rows"
            raise _refused(part, message, "a larger share, or more data")
        is_in = hashes <= different[count - 1] if part == "test" else hashes >= different[-count]
        parts[is_in] = PARTS.index(part)
    return parts


def part_by_share(number: int, held_out: HeldOut) -> Part:
    """The part of a row with this hash, if what is held out are shares."""
    if held_out.test is not None and number < _limit(held_out.test):
        return "test"
    if held_out.dev is not None and number >= (1 << BITS) - _limit(held_out.dev):
        return "dev"
    return "train"


def hash_rows(rows: Dataset, data: Data, work: Work) -> NDArray[np.uint64]:
    """The hash of each row: uint64 ``[rows]``."""
    hashed = map_rows(rows, _hashes, {"data": data}, work, batch_size=512)
    return column_values(hashed, "hash")


def _hashes(batch: dict[str, list[Any]], numbers: list[int], data: Data) -> dict[str, Any]:
    if data.kind == "pairs":
        pairs = PairFormat.of(data)
        found = [pair_hash(pairs.pair(row), row) for row in decoded(batch)]
    elif data.kind == "chat":
        layout = ChatFormat.of(data)
        found = [chat_hash(layout.conversation(row), row) for row in decoded(batch)]
    else:
        # A row without text is refused later, by check_text.
        found = [text_hash(text if isinstance(text, str) else repr(text)) for text in batch[TEXT]]
    return {"hash": np.array(found, np.uint64)}


def _count(part: str, value: float, different: NDArray[np.uint64]) -> int:
    """How many of the sorted hashes a part takes from its end of them."""
    if isinstance(value, int):
        return value
    limit = _limit(value)
    if part == "test":
        return int(np.searchsorted(different, np.uint64(limit), side="left"))
    return len(different) - int(np.searchsorted(different, np.uint64((1 << BITS) - limit), side="left"))


def _limit(share: float) -> int:
    # At least 1, so that 2^64 minus the limit fits 64 bits.
    return max(1, int(share * (1 << BITS)))


def _refused(part: str, message: str, expected: str = "fewer rows, or more data") -> DataError:
    key = f"data.held_out.{part}" if part else "data.held_out"
    hint = "a whole number takes that many different rows, a share (0.01) that part of them"
    return DataError(Problem(message, key, expected=expected, hint=hint))
