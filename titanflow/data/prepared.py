"""Prepared rows on disk: memory-mapped token arrays, written once and read by every rank.

A folder holds ``tokens.npy`` (1-D, uint16 or uint32), ``offsets.npy`` (int64, where each document starts and
the last one ends), for chats ``trained.npy`` (bool, aligned with the tokens) and ``dataset.json``, which is
written last: a folder without it doesn't count.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from titanflow.errors import DataError, Problem

DATASET_FILE = "dataset.json"
TOKENS_FILE = "tokens.npy"
OFFSETS_FILE = "offsets.npy"
TRAINED_FILE = "trained.npy"
IGNORE_INDEX = -100
# What this process is writing now.
_staged: set[Path] = set()
# No space, no quota, larger than a file may be.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class DatasetInfo:
    """``dataset.json``: what a prepared folder holds.

    ``tokens`` counts all tokens, ``trained_tokens`` those with a label, ``bytes`` the UTF-8 bytes of the
    source text. ``rows`` and ``seq_len`` are None for text: any ``seq_len`` cuts the same stream into its own
    rows. ``longest`` is the longest document's number of tokens; ``dropped`` counts left-out rows by reason.
    ``end_of_turn_id`` is the token that ends each trained turn of a chat.
    """

    kind: Literal["text", "chat"]
    name: str
    fingerprint: str
    documents: int
    tokens: int
    trained_tokens: int
    bytes: int
    dtype: str
    vocab_size: int
    pad_id: int
    rows: int | None = None
    seq_len: int | None = None
    longest: int = 0
    end_of_turn_id: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest unsigned type that holds every token id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def is_complete(folder: Path | str) -> bool:
    """Whether a folder of rows or evaluation items was finished."""
    return (Path(folder) / DATASET_FILE).is_file()


def read_info(folder: Path | str) -> DatasetInfo:
    """Reads a folder's ``dataset.json``.

    Raises:
        DataError: the folder isn't there, or was never finished.
    """
    path = Path(folder) / DATASET_FILE
    if not path.is_file():
        raise DataError(
            Problem(
                f"{folder} holds no prepared data: {DATASET_FILE} is missing",
                hint="prepare it first: `titanflow run` does, or `python -m titanflow.data.prepare run.yaml`",
            )
        )
    return DatasetInfo(**json.loads(path.read_text()))


@contextmanager
def staged_folder(folder: Path, mark: str = DATASET_FILE) -> Iterator[Path]:
    """Yields a hidden sibling to write into, which becomes ``folder`` in one move when the block ends well.

    An exception removes it; a process that is killed leaves only the hidden sibling, which nothing reads and the
    next run sweeps. Two processes that make the same folder don't collide: the second finds it there and drops
    its own copy, which is equal. ``mark`` is the file that a complete folder has.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f"{_staging_prefix(folder)}{os.getpid()}-", dir=folder.parent))
    temporary.chmod(0o755)
    _staged.add(temporary)
    try:
        yield temporary
        if folder.is_dir() and not (folder / mark).is_file():
            shutil.rmtree(folder)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / mark).is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _staged.discard(temporary)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yields a folder that is removed when the block ends, however it ends."""
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=parent) as name:
        scratch = Path(name)
        _staged.add(scratch)
        yield scratch
    _staged.discard(scratch)


def discard_staged() -> None:
    """Removes what this process is staging, and its scratch folders: for a process that must end at once."""
    for temporary in tuple(_staged):
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Removes what killed processes of this machine left beside ``folder``."""
    prefix = _staging_prefix(folder)
    for leftover in folder.parent.glob(f"{glob.escape(prefix)}*"):
        process = leftover.name.removeprefix(prefix).partition("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(leftover, ignore_errors=True)


def _staging_prefix(folder: Path) -> str:
    # Process numbers mean something on their own machine only, and a workspace may be shared.
    return f".{folder.name}.{socket.gethostname()}."


def write_rows(
    folder: Path,
    info: DatasetInfo,
    tokens: Iterable[NDArray[np.integer]],
    trained: Iterable[NDArray[np.bool_]] | None,
    lengths: NDArray[np.int64],
) -> None:
    """Writes a folder's arrays and, last, its ``dataset.json``.

    Args:
        folder: an existing folder; see :func:`staged_folder`.
        info: what the arrays hold.
        tokens: chunks of token ids in document order, ``info.tokens`` in all.
        trained: chunks of the mask in the same order (chats only).
        lengths: tokens of each document, shape ``[documents]``.
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    np.save(folder / OFFSETS_FILE, offsets)
    _write_array(folder / TOKENS_FILE, tokens, info.tokens, np.dtype(info.dtype))
    if trained is not None:
        _write_array(folder / TRAINED_FILE, trained, info.tokens, np.dtype(np.bool_))
    (folder / DATASET_FILE).write_text(json.dumps(asdict(info), indent=2) + "\n")


def _write_array(path: Path, chunks: Iterable[NDArray], count: int, dtype: np.dtype) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    written = 0
    # Not through a memory map: on a full disk that would be a SIGBUS in place of an error.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype).data)
            written += len(chunk)
    if written != count:
        raise AssertionError(f"{path.name}: {written} values written where {count} were announced")


def no_room(error: BaseException | None) -> str:
    """What a full disk said, where ``error`` or what caused it is one; empty otherwise.

    Libraries written in Rust raise a plain ``Exception`` with the system's number in its text.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number in _NO_ROOM or any(f"(os error {code})" in str(error) for code in _NO_ROOM):
            return str(error)
        error = error.__cause__ or error.__context__
    return ""


class Row(NamedTuple):
    """One training row, each array int64 of shape ``[seq_len]``.

    ``labels[i]`` is the target of ``input_ids[i]``, -100 where nothing is trained. ``positions``, of a packed row,
    count from 0 in each document, the padding at the end being a document of its own; None where the row is one.
    """

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64] | None = None


class PreparedRows:
    """Random access to a prepared folder's training rows.

    Text is one stream of tokens, cut into rows of ``seq_len`` across the documents' borders; a chat is a row.
    """

    def __init__(self, folder: Path, info: DatasetInfo, seq_len: int, rows: int) -> None:
        self.folder = folder
        self.info = info
        self.seq_len = seq_len
        self._rows = rows
        self._tokens = np.load(folder / TOKENS_FILE, mmap_mode="r")
        self._offsets = np.load(folder / OFFSETS_FILE)
        self._trained = np.load(folder / TRAINED_FILE, mmap_mode="r") if info.kind == "chat" else None

    @classmethod
    def open(cls, folder: Path | str, seq_len: int) -> PreparedRows:
        """Opens a prepared folder for rows of ``seq_len`` tokens.

        Raises:
            DataError: the folder isn't complete, holds less than one row, or holds chats that were prepared
                for another ``seq_len``.
        """
        folder = Path(folder)
        info = read_info(folder)
        if info.kind == "chat" and info.seq_len != seq_len:
            raise DataError(
                Problem(
                    f"{folder} was prepared for training.seq_len={info.seq_len}, not {seq_len}",
                    hint="run the prepare step again: its folder's fingerprint holds seq_len",
                )
            )
        rows = text_rows(info.tokens, seq_len) if info.kind == "text" else info.documents
        if rows == 0:
            raise too_short(info, seq_len)
        return cls(folder, info, seq_len, rows)

    def __len__(self) -> int:
        return self._rows

    def row(self, index: int) -> Row:
        """Row ``index``.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= index < self._rows:
            raise IndexError(f"row {index} of {self._rows} in {self.folder}")
        return self._text_row(index) if self._trained is None else self._chat_row(index)

    def _text_row(self, index: int) -> Row:
        start = index * self.seq_len
        tokens = np.asarray(self._tokens[start : start + self.seq_len + 1], dtype=np.int64)
        return Row(tokens[:-1], tokens[1:].copy())

    def _chat_row(self, index: int) -> Row:
        assert self._trained is not None
        span = slice(self._offsets[index], self._offsets[index + 1])
        tokens = np.asarray(self._tokens[span], dtype=np.int64)
        trained = self._trained[span]
        count = len(tokens) - 1
        input_ids = np.full(self.seq_len, self.info.pad_id, dtype=np.int64)
        labels = np.full(self.seq_len, IGNORE_INDEX, dtype=np.int64)
        input_ids[:count] = tokens[:-1]
        labels[:count] = np.where(trained[1:], tokens[1:], IGNORE_INDEX)
        return Row(input_ids, labels)


def text_rows(tokens: int, seq_len: int) -> int:
    """How many rows of ``seq_len`` inputs a stream gives; each needs one token more, the last one's label."""
    return max(tokens - 1, 0) // seq_len


def too_short(info: DatasetInfo, seq_len: int) -> DataError:
    """The error for data that doesn't fill a single row."""
    if info.kind == "chat":
        return DataError(
            Problem(
                f"none of {info.name}'s chats can be trained on (dropped: {info.dropped})",
                hint=f"raise training.seq_len (it is {seq_len}), or give shorter chats",
            )
        )
    return DataError(
        Problem(
            f"{info.name} holds {info.tokens} tokens, too few for one row of training.seq_len={seq_len}",
            expected=f"at least {seq_len + 1} tokens",
            hint="give more text, or lower training.seq_len",
        )
    )
