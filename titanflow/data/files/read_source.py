"""Reads a source's local files into Arrow files, in parts: small files together, large ones divided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titanflow.common.digests import digest
from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.training import Document
from titanflow.data.files.file_rows import Unit, has_row_a_line
from titanflow.data.files.local_files import KEY, LocalFiles
from titanflow.data.files.sources import PIECE, PLACE, Source, SourceFile
from titanflow.data.files.spans import WHOLE, Span, length, spans
from titanflow.data.parts import work as parts
from titanflow.data.parts.mapped import joined
from titanflow.data.parts.work import Work

# Rows and characters to hold in memory before they are written.
_BATCH_ROWS, _BATCH_CHARACTERS = 1000, 1 << 22

Reader = Callable[[Path, Span, Counter[str]], tuple[Unit, Iterable[tuple[int, str]]]]
"""Returns the unit of a file's places, and the rows of a span, each with its place there; counts unread columns."""


@dataclass(frozen=True)
class Piece:
    """A span of a file, by the file's number in the source."""

    file: int
    span: Span


def read_source(
    found: LocalFiles, read: Reader, column: str, limit: int | None, document: Document, work: Work, settings: Any
) -> Source:
    """Reads files up to row ``limit``: texts as ``column``, and where each stands.

    ``settings`` are those on which ``read`` depends.

    Raises:
        DataError: a file can't be used; it is that of the first such file.
    """
    size = parts.PART_BYTES
    # The rows behind a limit aren't looked at, so one process has to count them.
    whole = [[WHOLE]] * len(found.files) if limit is not None else None
    of_files = whole or [spans(file, document, has_row_a_line, size) for file in found.files]
    pieces = [Piece(number, span) for number, of_file in enumerate(of_files) for span in of_file]
    ends = [len(pieces)] if limit is not None else list(_ends(found.files, pieces, size))
    key = digest([settings, limit, size, [_identity(file) for file in found.files]])
    made = work.parts(_Reading(found.files, read, column, limit, pieces, [0, *ends]), len(ends), key)
    for part in made:
        if (failed := part.noted["failed"]) is not None:
            raise _error(found.files[pieces[failed].file], read)
    units = {pieces[number].file: unit for part in made for number, unit in part.noted["units"]}
    unread = sum((Counter(part.noted["unread"]) for part in made), Counter[str]())
    files = [SourceFile(str(file), units[number]) for number, file in enumerate(found.files) if number in units]
    lengths = {number: count for part in made for number, count in part.noted["lengths"]}
    return Source(
        joined(made),
        files,
        _starts(pieces, lengths),
        key,
        dict(found.passed_over + Counter({"behind the limit": len(found.files) - len(files)})),
        unread=dict(unread),
    )


def _ends(files: list[Path], pieces: list[Piece], size: int) -> Iterator[int]:
    """Where parts of the pieces end: each has about ``size`` bytes."""
    taken = 0
    for number, piece in enumerate(pieces):
        taken += size if piece.span != WHOLE else files[piece.file].stat().st_size
        if taken >= size or number + 1 == len(pieces):
            yield number + 1
            taken = 0


def _starts(pieces: list[Piece], lengths: dict[int, int]) -> NDArray[np.int64]:
    """Each piece's file number, and how many places of its file are before it."""
    starts = np.array([(piece.file, 0) for piece in pieces], np.int64)
    for before, number in pairwise(range(len(pieces))):
        if pieces[number].span.start:
            starts[number, 1] = starts[before, 1] + lengths[before]
    return starts


def _identity(file: Path) -> list[Any]:
    state = file.stat()
    return [str(file), state.st_size, state.st_mtime_ns]


def _error(file: Path, read: Reader) -> DataError:
    """The error of a file, as reading it from its beginning tells it: with its own lines."""
    try:
        for _ in read(file, WHOLE, Counter())[1]:
            pass
    except DataError as error:
        return error
    return DataError(Problem("it changed while it was read", KEY, str(file)))


@dataclass(frozen=True)
class _Reading:
    """Makes a part: the rows of the pieces from one end to the next.

    It notes the ``units`` and, of divided files, ``lengths`` of pieces by their number, the ``unread`` columns, and the
    piece that ``failed``.
    """

    files: list[Path]
    read: Reader
    column: str
    limit: int | None
    pieces: list[Piece]
    ends: list[int]

    def __call__(self, number: int, path: Path) -> dict[str, Any]:
        unread, units, lengths = Counter[str](), list[tuple[int, Unit]](), list[tuple[int, int]]()

        def rows() -> Iterator[tuple[str, int, int]]:
            for piece in range(self.ends[number], self.ends[number + 1]):
                reached.append(piece)
                file, span = self.files[self.pieces[piece].file], self.pieces[piece].span
                unit, of_file = self.read(file, span, unread)
                units.append((piece, unit))
                yield from ((text, piece, place) for place, text in of_file)
                if span != WHOLE:
                    lengths.append((piece, length(file, span)))

        reached, failed = list[int](), None
        try:
            _write_arrow(path, self.column, islice(rows(), self.limit))
        except DataError:
            failed = reached[-1]
        return {"units": units, "lengths": lengths, "unread": unread, "failed": failed}


def _write_arrow(path: Path, column: str, rows: Iterable[tuple[str, int, int]]) -> None:
    import pyarrow

    # Large strings, because a single text may exceed 2 GiB.
    schema = pyarrow.schema({column: pyarrow.large_string(), PIECE: pyarrow.int32(), PLACE: pyarrow.int64()})
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
