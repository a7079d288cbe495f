"""Prepared rows on disk: memory-mapped token arrays, written once and read by every rank.

A folder holds ``tokens.npy`` (1-D, uint16 or uint32), ``offsets.npy`` (int64, where each document starts and
the last one ends) and ``dataset.json``, which is written last: a folder without it is incomplete. Chats add
``trained.npy`` (bool, aligned with the tokens) and ``chat_template.jinja``. Packed chats add ``members.npy`` (int64,
the documents row by row) and ``row_offsets.npy`` (int64, where each row starts in it and the last one ends). A pair is
one document; its rejected side's tokens stand behind the chosen side's, whose number is in ``splits.npy`` (int64).

``places.npy`` (int64 ``[documents, 2]``) has each document's file number and its place in that file, ``hashes.npy``
(uint64 ``[documents]``) the hash of its content: see :mod:`titanflow.data.held_out.row_hash`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from titanflow.common.errors import DataError, Problem
from titanflow.config.keys.training import RENDERED_KINDS
from titanflow.data.dataset_info import DatasetInfo, hint_of, read_info
from titanflow.data.files.file_counts import check_sums
from titanflow.data.length_groups import Epochs, GroupedByLength
from titanflow.data.order import Course, Order, Shuffled
from titanflow.files.own_files import readable
from titanflow.runs.contract import DATASET_FILE

TOKENS_FILE = "tokens.npy"
OFFSETS_FILE = "offsets.npy"
TRAINED_FILE = "trained.npy"
PLACES_FILE = "places.npy"
HASHES_FILE = "hashes.npy"
MEMBERS_FILE = "members.npy"
ROW_OFFSETS_FILE = "row_offsets.npy"
SPLITS_FILE = "splits.npy"
IGNORE_INDEX = -100


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def write_rows(
    folder: Path,
    info: DatasetInfo,
    tokens: Iterable[NDArray[np.integer]],
    lengths: NDArray[np.int64],
    trained: Iterable[NDArray[np.bool_]] | None = None,
    places: NDArray[np.int64] | None = None,
    hashes: NDArray[np.uint64] | None = None,
    packs: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    splits: NDArray[np.int64] | None = None,
) -> None:
    """Writes a folder's arrays and, last, its ``dataset.json``.

    ``tokens`` are chunks of token ids in document order, ``trained`` chunks of the mask (chats only), ``lengths`` the
    tokens of each document, shape ``[documents]``. For ``packs`` see :func:`titanflow.data.chat.packing.best_fit`.
    """
    check_sums(info.files, len(lengths), info.bytes, info.dropped, info.elsewhere)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    np.save(folder / OFFSETS_FILE, offsets)
    _write_array(folder / TOKENS_FILE, tokens, info.tokens, np.dtype(info.dtype))
    if trained is not None:
        _write_array(folder / TRAINED_FILE, trained, info.tokens, np.dtype(np.bool_))
    members, row_offsets = packs or (None, None)
    arrays = {PLACES_FILE: places, HASHES_FILE: hashes, MEMBERS_FILE: members, ROW_OFFSETS_FILE: row_offsets}
    arrays[SPLITS_FILE] = splits
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / name, array)
    (folder / DATASET_FILE).write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")


def _write_array(path: Path, chunks: Iterable[NDArray], count: int, dtype: np.dtype) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    written = 0
    # Not through a memory map: a full disk would then raise SIGBUS and no error.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype).data)
            written += len(chunk)
    if written != count:
        raise AssertionError(f"{path.name}: {written} values written where {count} were announced")


class Row(NamedTuple):
    """One training row, each array int64 of shape ``[seq_len]``, or ``[2, seq_len]`` where it holds pairs.

    ``labels[i]`` is the target of ``input_ids[i]``, -100 where nothing is trained. In a packed row, ``positions`` count
    from 0 in each document, and the padding at the end counts as a document. Otherwise they are None.

    The first half of a row of pairs holds the chosen sides and the second one the rejected sides, in the same order.
    ``pairs`` are the numbers of its pairs in the whole data, int64 ``[pairs]``, and ``sides`` how many tokens their
    sides have, ``[2, pairs]``.
    """

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64] | None = None
    pairs: NDArray[np.int64] | None = None
    sides: NDArray[np.int64] | None = None


def mapped(folder: Path, name: str) -> NDArray[Any]:
    """One of the arrays in a folder of rows, which stays on the disk.

    Raises:
        DataError: it is missing, or damaged.
    """
    with readable(folder / name, hint_of(folder)):
        array: NDArray[Any] = np.load(folder / name, mmap_mode="r")
        return array


Document = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The tokens and labels of a chat, or of one side of a pair, each int64 ``[tokens]``."""


class PreparedRows:
    """Random access to a prepared folder's training rows.

    Text is one stream of tokens, cut into rows of ``seq_len`` regardless of documents. A row of chats holds one chat,
    or several whole ones if they are packed.
    """

    def __init__(self, folder: Path, info: DatasetInfo, seq_len: int, rows: int) -> None:
        self.folder = folder
        self.info = info
        self.seq_len = seq_len
        self._rows = rows
        self._tokens = mapped(folder, TOKENS_FILE)
        # Mapped, too: eight bytes a document are gigabytes, which text rows never look at.
        self._offsets = mapped(folder, OFFSETS_FILE)
        self._trained = mapped(folder, TRAINED_FILE) if info.kind in RENDERED_KINDS else None
        self._members = mapped(folder, MEMBERS_FILE) if info.packing else None
        self._row_offsets = mapped(folder, ROW_OFFSETS_FILE) if info.packing else None
        self._splits = mapped(folder, SPLITS_FILE) if info.kind == "pairs" else None

    @classmethod
    def open(cls, folder: Path | str, seq_len: int) -> PreparedRows:
        """Opens a prepared folder for rows of ``seq_len`` tokens.

        Raises:
            DataError: the folder is incomplete, holds less than one row, or chats prepared for another ``seq_len``.
        """
        folder = Path(folder)
        info = read_info(folder)
        if info.kind in RENDERED_KINDS and info.seq_len != seq_len:
            message = f"{folder} was prepared for training.seq_len={info.seq_len}, not {seq_len}"
            hint = "run the prepare step again: its folder's fingerprint holds seq_len"
            raise DataError(Problem(message, hint=hint))
        rows = text_rows(info.tokens, seq_len) if info.kind == "text" else info.rows or 0
        if rows == 0:
            raise too_short(info, seq_len)
        return cls(folder, info, seq_len, rows)

    def __len__(self) -> int:
        return self._rows

    def order(self, seed: int, course: Course | None = None) -> Order:
        """The order in which any training visits the rows, or the ``course`` of one that asks for its own."""
        order = Shuffled(len(self), seed)
        if course is None or not (course.by_length and self.differ):
            return order
        parts = Epochs(len(self), course.batch, course.skipped)
        return GroupedByLength(order, self.lengths, course, seed, parts)

    @property
    def differ(self) -> bool:
        """Whether rows differ in length: those of text and packed ones are full."""
        return self._trained is not None and self._members is None

    def lengths(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tokens of these rows, of a pair those of its longer side, without padding."""
        if not self.differ:
            return np.full(len(indices), self.seq_len, dtype=np.int64)
        lengths = np.asarray(self._offsets[indices + 1] - self._offsets[indices])
        if self._splits is None:
            return lengths
        splits = np.asarray(self._splits[indices])
        return np.maximum(splits, lengths - splits)

    def row(self, index: int) -> Row:
        """Row ``index``.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= index < self._rows:
            raise IndexError(f"row {index} of {self._rows} in {self.folder}")
        if self._trained is not None:
            return self._chat_row(index)
        start = index * self.seq_len
        tokens = np.asarray(self._tokens[start : start + self.seq_len + 1], dtype=np.int64)
        return Row(tokens[:-1], tokens[1:].copy())

    def document(self, index: int) -> Document:
        """A chat's ``(input_ids, labels)``, unpacked and without padding, each int64 ``[tokens]``.

        The last label is -100: nothing follows. So is the last one of a pair's chosen side, behind which the rejected
        side stands.
        """
        assert self._trained is not None
        span = slice(self._offsets[index], self._offsets[index + 1])
        tokens = np.asarray(self._tokens[span], dtype=np.int64)
        labels = np.full(len(tokens), IGNORE_INDEX, dtype=np.int64)
        labels[:-1] = np.where(self._trained[span][1:], tokens[1:], IGNORE_INDEX)
        return tokens, labels

    def _chat_row(self, index: int) -> Row:
        documents = [index]
        if self._members is not None and self._row_offsets is not None:
            documents = self._members[self._row_offsets[index] : self._row_offsets[index + 1]].tolist()
        if self._splits is None:
            return self._filled([self.document(document) for document in documents])
        sides = [self.sides(document) for document in documents]
        halves = [self._filled(list(half)) for half in zip(*sides, strict=True)]
        positions = [half.positions for half in halves if half.positions is not None]
        return Row(
            np.stack([half.input_ids for half in halves]),
            np.stack([half.labels for half in halves]),
            np.stack(positions) if positions else None,
            np.array(documents, np.int64),
            np.array([[len(tokens) for tokens, _ in half] for half in zip(*sides, strict=True)], np.int64),
        )

    def sides(self, index: int) -> list[Document]:
        """The chosen and the rejected side of a pair; of a chat the chat alone."""
        tokens, labels = self.document(index)
        if self._splits is None:
            return [(tokens, labels)]
        split = int(self._splits[index])
        return [(tokens[:split], labels[:split]), (tokens[split:], labels[split:])]

    def _filled(self, documents: list[Document]) -> Row:
        """A row of these documents, with padding behind."""
        input_ids = np.full(self.seq_len, self.info.pad_id, dtype=np.int64)
        labels = np.full(self.seq_len, IGNORE_INDEX, dtype=np.int64)
        positions = np.zeros(self.seq_len, dtype=np.int64)
        end = 0
        for tokens, targets in documents:
            start, end = end, end + len(tokens)
            input_ids[start:end], labels[start:end] = tokens, targets
            positions[start:end] = np.arange(len(tokens))
        positions[end:] = np.arange(self.seq_len - end)
        return Row(input_ids, labels, positions if self._members is not None else None)


def text_rows(tokens: int, seq_len: int) -> int:
    """How many rows of ``seq_len`` inputs a stream gives. Each row needs one token more, its last label."""
    return max(tokens - 1, 0) // seq_len


def too_short(info: DatasetInfo, seq_len: int) -> DataError:
    if info.kind in RENDERED_KINDS:
        what = "chats" if info.kind == "chat" else "pairs"
        reasons = ", ".join(f"{reason}: {count}" for reason, count in info.dropped.items())
        way_out = f"raise training.seq_len (it is {seq_len}), or give shorter {what}"
        hint = "data.malformed: error shows what is wrong with the first of them"
        if "too_long" in info.dropped:
            hint = way_out
        elif set(info.dropped) == {"nothing_trained"}:
            hint = f"mark an assistant's turn in each as trained; where data.overlong cuts all of them off, {way_out}"
        return DataError(Problem(f"none of {info.name}'s {what} can be trained on ({reasons})", hint=hint))
    message = f"{info.name} holds {info.tokens} tokens, too few for one row of training.seq_len={seq_len}"
    hint = "give more text, or lower training.seq_len"
    return DataError(Problem(message, expected=f"at least {seq_len + 1} tokens", hint=hint))
