"""A source's rows as a ``datasets.Dataset``, with the file and place of each."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from titanflow.common.errors import DataError, Problem
from titanflow.common.home import expanded
from titanflow.common.staging import no_room
from titanflow.config.keys.training import SOURCE_KEYS, Data
from titanflow.data.files.file_rows import Unit
from titanflow.data.files.local_files import LocalFiles

if TYPE_CHECKING:
    from datasets import Dataset

MAX_PROBLEMS = 20
"""Most problems of a source that are reported; the rest are counted."""
FILE = "file_number"
PLACE = "place"
"""The columns that say where a row of local files stands."""
# Rows and characters to hold in memory before they are written.
_BATCH_ROWS, _BATCH_CHARACTERS = 1000, 1 << 22


@dataclass(frozen=True)
class SourceFile:
    """A file or dataset of a source; ``unit`` is the unit of its rows' places: lines, or rows from 1."""

    name: str
    unit: Unit = "row"

    def origin(self, place: int) -> str:
        """``file:line``, or ``file:row N`` if the format has no lines."""
        return f"{self.name}:{place}" if self.unit == "line" else f"{self.name}:row {place}"


@dataclass(frozen=True)
class Source:
    """A source's rows, and where each stands.

    Attributes:
        rows: rows from files also have the columns :data:`FILE` and :data:`PLACE`.
        files: the files, or the one dataset.
        passed_over: the number of skipped files in the named folders, by reason.
        numbers: if this is a part, each row's number in the whole source: int64 ``[rows]``.
        elsewhere: the source's other rows in each file, by their part or as ``duplicate``: int64 ``[files]``.
        unread: columns that nothing reads, each with the number of rows of the whole source that have it.
    """

    rows: Dataset
    files: list[SourceFile]
    passed_over: dict[str, int] = field(default_factory=dict)
    numbers: NDArray[np.int64] | None = None
    elsewhere: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def has_files(self) -> bool:
        return FILE in self.rows.column_names

    def places(self) -> NDArray[np.int64]:
        """Each row's file number and its place there: int64 ``[rows, 2]``."""
        if not self.has_files:
            numbers = np.arange(len(self.rows)) if self.numbers is None else self.numbers
            return np.stack([np.zeros(len(self.rows), np.int64), numbers + 1], axis=1)
        columns = self.rows.select_columns([FILE, PLACE]).with_format("numpy")
        return np.stack([columns[FILE][:], columns[PLACE][:]], axis=1).astype(np.int64)

    def origin(self, row: int) -> str:
        if not self.has_files:
            return self.files[0].origin(1 + (row if self.numbers is None else int(self.numbers[row])))
        found = self.rows.select_columns([FILE, PLACE])[row]
        return self.files[found[FILE]].origin(found[PLACE])


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


Reader = Callable[[Path], tuple[Unit, Iterable[tuple[int, str]]]]
"""Returns the unit of a file's places, and its rows, each with its place."""


def write_source(found: LocalFiles, read: Reader, column: str, limit: int | None, cache: Path) -> Source:
    """Reads files into an Arrow file in ``cache``, up to row ``limit``: texts as ``column``, and where each stands."""
    from datasets import Dataset

    files: list[SourceFile] = []

    def rows() -> Iterator[tuple[str, int, int]]:
        for number, file in enumerate(found.files):
            unit, of_file = read(file)
            files.append(SourceFile(str(file), unit))
            yield from ((text, number, place) for place, text in of_file)

    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"rows-{uuid.uuid4().hex}.arrow"
    _write_arrow(path, column, islice(rows(), limit))
    unread = Counter({"behind the limit": len(found.files) - len(files)})
    return Source(Dataset.from_file(str(path)), files, dict(found.passed_over + unread))


def _write_arrow(path: Path, column: str, rows: Iterable[tuple[str, int, int]]) -> None:
    import pyarrow

    # Large strings, because a single text may exceed 2 GiB.
    schema = pyarrow.schema({column: pyarrow.large_string(), FILE: pyarrow.int32(), PLACE: pyarrow.int64()})
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
        for batch in _batches(rows):
            columns = map(pyarrow.array, zip(*batch, strict=True), schema.types)
            writer.write_batch(pyarrow.record_batch(list(columns), schema=schema))


def _batches(rows: Iterable[tuple[str, int, int]]) -> Iterator[list[tuple[str, int, int]]]:
    batch: list[tuple[str, int, int]] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row[0])
        if len(batch) == _BATCH_ROWS or characters > _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


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
