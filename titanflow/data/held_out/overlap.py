"""Refuses rows that are both trained on and used for validation or evaluation, whatever their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titanflow.common.errors import DataError, Problem
from titanflow.data.dataset_info import read_facts
from titanflow.data.files.sources import SourceFile
from titanflow.data.prepared import HASHES_FILE, PLACES_FILE, mapped


def check_overlap(trained: Mapping[str, Path], judged: Mapping[str, Path]) -> None:
    """Refuses rows that folders of both kinds share, and names each two such folders; rows are compared by hash."""
    known = {name: hashes for name, folder in trained.items() if (hashes := _hashes(folder)) is not None}
    problems = []
    for name, folder in judged.items():
        if (hashes := _hashes(folder)) is None:
            continue
        for other, of_other in known.items():
            shared = np.isin(hashes, of_other)
            if shared.any():
                row = int(np.argmax(shared))
                twin = _origin(trained[other], int(np.argmax(of_other == hashes[row])))
                problems.append(_problem(name, int(shared.sum()), len(hashes), _origin(folder, row), other, twin))
    if problems:
        raise DataError(problems)


def _problem(name: str, shared: int, rows: int, origin: str, other: str, twin: str) -> Problem:
    message = f"{shared} of the {rows} rows of {name} are trained on, in {other}; this row equals {twin}"
    hint = (
        "take the rows out of one of the two; or hold rows out of the training data, with the same shares for each "
        "source: equal rows are then in the same part, whatever files they stand in"
    )
    return Problem(message, "data", origin, "rows that nothing trains on", hint)


def _hashes(folder: Path) -> NDArray[np.uint64] | None:
    return mapped(folder, HASHES_FILE) if (folder / HASHES_FILE).is_file() else None


def _origin(folder: Path, document: int) -> str:
    number, place = mapped(folder, PLACES_FILE)[document].tolist()
    file: dict[str, Any] = read_facts(folder)["files"][number]
    return SourceFile(file["name"], file["unit"]).origin(place)
