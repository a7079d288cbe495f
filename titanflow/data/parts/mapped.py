"""Computes something of each row of a ``datasets.Dataset``, in parts, and reads the columns of the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from titanflow.data.parts import work as parts
from titanflow.data.parts.work import Part, Work

if TYPE_CHECKING:
    from datasets import Dataset


def map_rows(
    rows: Dataset, function: Callable[..., Any], options: dict[str, Any], work: Work, batch_size: int, key: str = ""
) -> Dataset:
    """Runs ``function`` on batches of rows and their numbers, in parts; for ``key`` see :meth:`Work.parts`.

    The results are written to disk batch by batch, so that memory doesn't grow with the rows. Batches are the same
    whatever the parts.
    """
    batches = max(1, int(parts.PART_BYTES * len(rows) / max(1, rows.data.nbytes) / batch_size))
    size = batches * batch_size
    make = _Rows(rows, function, options, batch_size, size)
    return joined(work.parts(make, -(-len(rows) // size), f"{key}-{size}" if key else ""))


def joined(made: Iterable[Part]) -> Dataset:
    """The rows of all parts, in their order."""
    from datasets import Dataset, concatenate_datasets

    return concatenate_datasets([Dataset.from_file(str(part.path)) for part in made])


@dataclass(frozen=True)
class _Rows:
    """Makes a part: the outcome of ``size`` rows."""

    rows: Dataset
    function: Callable[..., Any]
    options: dict[str, Any]
    batch_size: int
    size: int

    def __call__(self, number: int, path: Path) -> None:
        first = number * self.size
        rows = self.rows.select(range(first, min(first + self.size, len(self.rows))))
        rows.map(
            _numbered,
            batched=True,
            with_indices=True,
            batch_size=self.batch_size,
            writer_batch_size=self.batch_size,
            fn_kwargs={"first": first, "function": self.function, "options": self.options},
            remove_columns=rows.column_names,
            load_from_cache_file=False,
            cache_file_name=str(path),
            # Otherwise all options would be hashed for each part.
            new_fingerprint=path.name,
        )


def _numbered(
    batch: dict[str, list[Any]], numbers: list[int], first: int, function: Callable[..., Any], options: dict[str, Any]
) -> Any:
    return function(batch, [first + number for number in numbers], **options)


def list_lengths(encoded: Dataset, column: str = "ids") -> NDArray[np.int64]:
    import pyarrow.compute as pc

    chunks = [pc.list_value_length(table[column]).to_numpy() for table in _tables(encoded)]
    return np.concatenate(chunks).astype(np.int64) if chunks else np.empty(0, np.int64)


def list_values(encoded: Dataset, column: str) -> Iterator[NDArray[Any]]:
    """A column's lists, joined into large arrays."""
    for table in _tables(encoded):
        for chunk in table[column].chunks:
            yield chunk.flatten().to_numpy(zero_copy_only=False)


def column_values(encoded: Dataset, column: str) -> NDArray[Any]:
    return np.concatenate([table[column].to_numpy() for table in _tables(encoded)])


def _tables(encoded: Dataset) -> Iterator[Any]:
    yield from encoded.with_format("arrow").iter(batch_size=4096)
