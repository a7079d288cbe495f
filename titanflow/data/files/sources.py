"""A source's rows as a ``datasets.Dataset``, with the file and place of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from titanflow.common.errors import DataError, Problem
from titanflow.common.files import expanded
from titanflow.common.staging import no_room
from titanflow.config.keys.training import SOURCE_KEYS, Data
from titanflow.data.files.file_rows import Unit, origin_of

if TYPE_CHECKING:
    from datasets import Dataset

MAX_PROBLEMS = 20
"""Most problems of a source that are reported; the rest are counted."""
PIECE = "piece"
PLACE = "place"
"""The columns that say where a row of local files stands: in which piece of the source's files, and where there."""


@dataclass(frozen=True)
class SourceFile:
    """A file or dataset of a source; ``unit`` is the unit of its rows' places: lines, or rows from 1."""

    name: str
    unit: Unit = "row"

    def origin(self, place: int) -> str:
        return origin_of(self.name, self.unit, place)


@dataclass(frozen=True)
class Source:
    """A source's rows, and where each stands.

    Attributes:
        rows: rows from files also have the columns :data:`PIECE` and :data:`PLACE`.
        files: the files, or the one dataset.
        pieces: for each piece its file's number and the places before it there: int64 ``[pieces, 2]``; None: each file
            is one.
        key: stands for everything that the rows depend on; empty if that isn't known before they are read.
        passed_over: the number of skipped files in the named folders, by reason.
        numbers: if this is a part, each row's number in the whole source: int64 ``[rows]``.
        elsewhere: the source's other rows in each file, by their part or as ``duplicate``: int64 ``[files]``.
        unread: columns that nothing reads, each with the number of rows of the whole source that have it.
    """

    rows: Dataset
    files: list[SourceFile]
    pieces: NDArray[np.int64] | None = None
    key: str = ""
    passed_over: dict[str, int] = field(default_factory=dict)
    numbers: NDArray[np.int64] | None = None
    elsewhere: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def has_files(self) -> bool:
        return PIECE in self.rows.column_names

    def places(self) -> NDArray[np.int64]:
        """Each row's file number and its place there: int64 ``[rows, 2]``."""
        if not self.has_files:
            numbers = np.arange(len(self.rows)) if self.numbers is None else self.numbers
            return np.stack([np.zeros(len(self.rows), np.int64), numbers + 1], axis=1)
        columns = self.rows.select_columns([PIECE, PLACE]).with_format("numpy")
        return self._in_files(columns[PIECE][:], columns[PLACE][:])

    def origin(self, row: int) -> str:
        if not self.has_files:
            return self.files[0].origin(1 + (row if self.numbers is None else int(self.numbers[row])))
        found = self.rows.select_columns([PIECE, PLACE])[row]
        ((file, place),) = self._in_files(np.array([found[PIECE]]), np.array([found[PLACE]])).tolist()
        return self.files[file].origin(place)

    def _in_files(self, pieces: NDArray[np.int32], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The file number and the place there: int64 ``[rows, 2]``."""
        if self.pieces is None:
            return np.stack([pieces, places], axis=1).astype(np.int64)
        files, before = self.pieces[pieces].T
        return np.stack([files, places + before], axis=1)


def check_one_source(data: Data) -> str:
    """The key that a data config sets: ``source``, ``path`` or ``dataset``. It must be exactly one."""
    given = [key for key in SOURCE_KEYS if getattr(data, key)]
    if len(given) != 1:
        found = " and ".join(f"data.{key}" for key in given) or "none of them"
        expected = "exactly one of data.source, data.path and data.dataset"
        raise DataError(Problem(f"{data.name or 'the data'} sets {found}", "data", expected=expected))
    return given[0]


def problems_error(problems: list[Problem]) -> DataError:
    return DataError(problems[:MAX_PROBLEMS], max(0, len(problems) - MAX_PROBLEMS))


def load_from_hub(data: Data) -> Dataset:
    """Reads a dataset of the Hub, or a local folder that ``datasets`` loads, up to ``data.limit``."""
    from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

    assert data.dataset is not None
    folder = expanded(data.dataset)
    if folder.is_dir() and (found := [part for part in ("[", "]", "?", "*", "::") if part in str(folder.absolute())]):
        # `datasets` takes a folder's name as a pattern, and would read other files or none.
        hint = "rename the folder, or name it in data.path, which takes such names literally"
        message = f"{folder.absolute()} has {' and '.join(found)} in its name"
        raise DataError(Problem(message, "data.dataset", hint=hint))
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            loaded = load_from_disk(str(folder))
            rows = loaded[data.split] if isinstance(loaded, DatasetDict) else loaded
        else:
            name = str(folder) if folder.is_dir() else data.dataset
            rows = load_dataset(name, data.config, split=data.split, revision=data.revision)
    except Exception as error:  # not found, no network, no such split or configuration: all say so
        if no_room(error):
            raise
        on_hub = "a dataset's name on the Hub, or a local folder; without a network only folders"
        hint = "" if folder.is_dir() else on_hub
        reason = f"{type(error).__name__}: {error}"
        raise DataError(Problem(f"can't load {data.dataset}: {reason}", "data.dataset", hint=hint)) from error
    assert isinstance(rows, Dataset)
    return rows if data.limit is None else rows.select(range(min(data.limit, len(rows))))
