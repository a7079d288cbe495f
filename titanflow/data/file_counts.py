"""What became of each file's rows: the accounts that ``dataset.json`` holds, and what the log says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from titanflow.config.additions import Data
from titanflow.data.local_files import Ending
from titanflow.data.prepared import DatasetInfo, FileCounts
from titanflow.data.sources import SourceFile


def count_files(
    files: list[SourceFile], numbers: NDArray[np.int64], reasons: NDArray[np.object_], sizes: NDArray[np.int64]
) -> list[FileCounts]:
    """Each file's rows, by what became of them.

    Args:
        files: the files.
        numbers: of each row the number of its file, shape ``[rows]``.
        reasons: why each row was dropped, empty where it is a document, shape ``[rows]``.
        sizes: bytes of each row's text, 0 where it was dropped, shape ``[rows]``.
    """
    count = len(files)
    by_reason = {reason: np.bincount(numbers[reasons == reason], minlength=count) for reason in set(reasons.tolist())}
    documents = by_reason.pop("", np.zeros(count, np.int64))
    rows = np.bincount(numbers, minlength=count)
    size = np.zeros(count, np.int64)
    np.add.at(size, numbers, sizes)
    return [
        FileCounts(
            name=file.name,
            unit=file.unit,
            rows=int(rows[number]),
            documents=int(documents[number]),
            bytes=int(size[number]),
            dropped={reason: int(found[number]) for reason, found in sorted(by_reason.items()) if found[number]},
        )
        for number, file in enumerate(files)
    ]


def account(info: DatasetInfo, data: Data) -> list[str]:
    """What the log says of a dataset that was prepared from files, a line each."""
    rows = sum(file["rows"] for file in info.files)
    dropped = "".join(f", {count} left out: {reason}" for reason, count in info.dropped.items())
    lines = [f"{info.name}: {len(info.files)} files, {rows} rows, {info.documents} documents{dropped}"]
    if data.path and info.passed_over:
        others = ", ".join(f"{count} × {reason}" for reason, count in sorted(info.passed_over.items()))
        lines.append(f"{info.name}: files passed over: {others}")
    plain = sum(Ending.of(Path(file["name"])).format == "text" for file in info.files) if data.path else 0
    if plain and data.document == "file":
        lines.append(
            f"{info.name}: {plain} of plain text, each file one document; data.document: paragraph or line parts them"
        )
    return lines
