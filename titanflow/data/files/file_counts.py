"""Accounts for the rows of each file, for ``dataset.json`` and the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from titanflow.data.files.sources import Source


class FileCounts(TypedDict):
    """What became of one file's rows: they are documents, or were dropped for a reason.

    If the source is divided, ``elsewhere`` counts the rows of other parts, and duplicates within this one.
    ``unit`` is the unit of places in the file: lines, or rows from 1.
    """

    name: str
    unit: Literal["line", "row"]
    rows: int
    documents: int
    bytes: int
    dropped: dict[str, int]
    elsewhere: dict[str, int]


def count_files(source: Source, reasons: NDArray[np.object_], sizes: NDArray[np.int64]) -> list[FileCounts]:
    """Counts what became of each file's rows.

    For each row, ``reasons`` says why it was dropped (empty if it wasn't), and ``sizes`` has its text's bytes, else 0.
    """
    files, numbers = source.files, source.places()[:, 0]
    count = len(files)
    by_reason = {reason: np.bincount(numbers[reasons == reason], minlength=count) for reason in set(reasons.tolist())}
    documents = by_reason.pop("", np.zeros(count, np.int64))
    rows = np.bincount(numbers, minlength=count) + sum(source.elsewhere.values())
    size = np.zeros(count, np.int64)
    np.add.at(size, numbers, sizes)
    return [
        FileCounts(
            name=file.name,
            unit=file.unit,
            rows=int(rows[number]),
            documents=int(documents[number]),
            bytes=int(size[number]),
            dropped=_of_file(by_reason, number),
            elsewhere=_of_file(source.elsewhere, number),
        )
        for number, file in enumerate(files)
    ]


def totals(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sums of all files' counts."""
    return dict(sum(map(Counter, counts), Counter[str]()))


def _of_file(counts: Mapping[str, NDArray[np.int64]], number: int) -> dict[str, int]:
    return {reason: int(found[number]) for reason, found in sorted(counts.items()) if found[number]}


def check_sums(
    files: list[FileCounts], documents: int, size: int, dropped: dict[str, int], elsewhere: dict[str, int]
) -> None:
    """Asserts that every row of every file is written, dropped for a reason, or in another part."""
    if not files:
        return
    for file in files:
        if file["rows"] != file["documents"] + sum(file["dropped"].values()) + sum(file["elsewhere"].values()):
            raise AssertionError(f"not every row is accounted for: {file}")
    counts = (totals(file["dropped"] for file in files), totals(file["elsewhere"] for file in files))
    sums = (sum(file["documents"] for file in files), sum(file["bytes"] for file in files), *map(Counter, counts))
    if sums != (written := (documents, size, Counter(dropped), Counter(elsewhere))):
        raise AssertionError(f"the files' sums are {sums}; written were {written}")
