"""What became of each file's rows: the accounts that ``dataset.json`` holds, and what the log says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from titanflow.data.files.sources import Source


class FileCounts(TypedDict):
    """What became of one file's rows: so many documents of so many bytes, the others dropped for a reason.

    Of a divided source, ``elsewhere`` counts the rows that another part has, and those that stand here twice.
    ``unit`` is what places in the file are counted in: lines, or rows from 1.
    """

    name: str
    unit: Literal["line", "row"]
    rows: int
    documents: int
    bytes: int
    dropped: dict[str, int]
    elsewhere: dict[str, int]


def count_files(source: Source, reasons: NDArray[np.object_], sizes: NDArray[np.int64]) -> list[FileCounts]:
    """Each file's rows, by what became of them.

    Args:
        source: the rows.
        reasons: why each row was dropped, empty where it is a document, shape ``[rows]``.
        sizes: bytes of each row's text, 0 where it was dropped, shape ``[rows]``.
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
    found: Counter[str] = Counter()
    for one in counts:
        found += Counter(one)
    return dict(found)


def _of_file(counts: Mapping[str, NDArray[np.int64]], number: int) -> dict[str, int]:
    return {reason: int(found[number]) for reason, found in sorted(counts.items()) if found[number]}


def check_sums(
    files: list[FileCounts], documents: int, size: int, dropped: dict[str, int], elsewhere: dict[str, int]
) -> None:
    """Asserts that every row of every file was written, was dropped for a reason, or belongs to another part."""
    if not files:
        return
    counts: dict[str, Counter[str]] = {"dropped": Counter(), "elsewhere": Counter()}
    for file in files:
        counts["dropped"] += Counter(file["dropped"])
        counts["elsewhere"] += Counter(file["elsewhere"])
        if file["rows"] != file["documents"] + sum(file["dropped"].values()) + sum(file["elsewhere"].values()):
            raise AssertionError(f"not every row is accounted for: {file}")
    sums = (sum(file["documents"] for file in files), sum(file["bytes"] for file in files), *counts.values())
    if sums != (written := (documents, size, Counter(dropped), Counter(elsewhere))):
        raise AssertionError(f"the files' sums are {sums}; written were {written}")
