from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from titanflow.common.errors import DataError
from titanflow.common.staging import staged_folder
from titanflow.data.dataset_info import DatasetInfo, is_complete
from titanflow.data.prepared import IGNORE_INDEX, PreparedRows, token_dtype, write_rows
from titanflow.runs.contract import DATASET_FILE


def make(
    folder: Path,
    documents: list[list[int]],
    trained: list[list[bool]] | None = None,
    packs: list[list[int]] | None = None,
    **facts: Any,
) -> Path:
    tokens = [np.asarray(document, np.uint16) for document in documents]
    info = DatasetInfo(
        kind="text" if trained is None else "chat",
        name="example",
        fingerprint="f",
        documents=len(documents),
        tokens=sum(map(len, documents)),
        trained_tokens=0,
        bytes=0,
        dtype="uint16",
        vocab_size=300,
        pad_id=3,
        rows=len(packs) if packs else len(documents),
        packing="best_fit" if packs else None,
        **facts,
    )
    mask = None if trained is None else [np.asarray(row, np.bool_) for row in trained]
    members = np.asarray([number for row in packs or [] for number in row], np.int64)
    offsets = np.cumsum([0, *(len(row) for row in packs or [])])
    lengths = np.asarray([len(document) for document in documents])
    with staged_folder(folder, DATASET_FILE) as staged:
        write_rows(staged, info, tokens, lengths, mask, packs=(members, offsets) if packs else None)
    return folder


def test_text_rows_tile_the_stream(tmp_path: Path) -> None:
    stream = list(range(100, 123))
    rows = PreparedRows.open(make(tmp_path / "text", [stream[:9], stream[9:]]), seq_len=5)
    assert len(rows) == 4
    for index in range(4):
        input_ids, labels, *_ = rows.row(index)
        assert input_ids.tolist() == stream[index * 5 : index * 5 + 5]
        assert labels.tolist() == stream[index * 5 + 1 : index * 5 + 6]
        assert input_ids.dtype == labels.dtype == np.int64


@pytest.mark.parametrize(("tokens", "rows"), [(6, 1), (10, 1), (11, 2)])
def test_the_last_row_needs_a_label_for_its_last_token(tmp_path: Path, tokens: int, rows: int) -> None:
    assert len(PreparedRows.open(make(tmp_path / "text", [list(range(tokens))]), seq_len=5)) == rows


def test_text_shorter_than_a_row_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "text", [list(range(5))])
    with pytest.raises(DataError, match=r"example holds 5 tokens, too few for one row of training.seq_len=5"):
        PreparedRows.open(folder, seq_len=5)


def test_a_chat_is_a_row_shifted_masked_and_padded(tmp_path: Path) -> None:
    folder = make(tmp_path / "chat", [[7, 8, 9, 10], [5, 6]], [[False, False, True, True], [False, True]], seq_len=6)
    rows = PreparedRows.open(folder, seq_len=6)
    assert len(rows) == 2
    input_ids, labels, positions, *_ = rows.row(0)
    assert input_ids.tolist() == [7, 8, 9, 10, 3, 3]
    assert labels.tolist() == [IGNORE_INDEX, 9, 10, *[IGNORE_INDEX] * 3]
    assert positions is None
    input_ids, labels, *_ = rows.row(1)
    assert input_ids.tolist() == [5, 6, 3, 3, 3, 3]
    assert labels.tolist() == [6] + [IGNORE_INDEX] * 5


def test_a_chat_that_fills_its_row_has_no_padding(tmp_path: Path) -> None:
    folder = make(tmp_path / "chat", [[7, 8, 9, 10]], [[False, False, True, True]], seq_len=4)
    row = PreparedRows.open(folder, 4).row(0)
    assert row.input_ids.tolist() == [7, 8, 9, 10]
    assert row.labels.tolist() == [IGNORE_INDEX, 9, 10, IGNORE_INDEX]


def test_packed_chats_follow_one_another_and_each_counts_from_0(tmp_path: Path) -> None:
    documents = [[7, 8, 9], [5, 6], [10, 11]]
    trained = [[False, True, True], [True, True], [False, True]]
    folder = make(tmp_path / "chat", documents, trained, packs=[[0, 2], [1]], seq_len=7)
    rows = PreparedRows.open(folder, 7)
    assert len(rows) == 2
    first, second = rows.row(0), rows.row(1)
    assert first.input_ids.tolist() == [7, 8, 9, 10, 11, 3, 3]
    # The last token of a document predicts nothing, and its first is predicted by nothing.
    assert first.labels.tolist() == [8, 9, IGNORE_INDEX, 11, *[IGNORE_INDEX] * 3]
    assert first.positions is not None
    assert first.positions.tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert second.labels.tolist() == [6] + [IGNORE_INDEX] * 6
    assert second.positions is not None
    assert second.positions.tolist() == [0, 1, 0, 1, 2, 3, 4]


def test_a_document_is_there_as_it_was(tmp_path: Path) -> None:
    folder = make(tmp_path / "chat", [[7, 8], [5, 6]], [[False, True]] * 2, packs=[[1, 0]], seq_len=4)
    tokens, labels = PreparedRows.open(folder, 4).document(1)
    assert (tokens.tolist(), labels.tolist()) == ([5, 6], [6, IGNORE_INDEX])


def test_a_trained_pad_token_keeps_its_label(tmp_path: Path) -> None:
    folder = make(tmp_path / "chat", [[7, 3, 3]], [[False, True, True]], seq_len=4)
    assert PreparedRows.open(folder, 4).row(0)[1].tolist() == [3, 3, *[IGNORE_INDEX] * 2]


def test_chats_of_another_seq_len_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "chat", [[7, 8]], [[False, True]], seq_len=6)
    with pytest.raises(DataError, match=r"prepared for training.seq_len=6, not 8"):
        PreparedRows.open(folder, 8)


def test_rows_end(tmp_path: Path) -> None:
    rows = PreparedRows.open(make(tmp_path / "text", [list(range(11))]), 5)
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"row {index} of 2"):
            rows.row(index)


def test_a_row_can_be_written_to_without_touching_the_file(tmp_path: Path) -> None:
    rows = PreparedRows.open(make(tmp_path / "text", [list(range(11))]), 5)
    rows.row(0)[0][:] = 0
    assert rows.row(0)[0].tolist() == [0, 1, 2, 3, 4]


def test_a_folder_without_its_mark_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "text", [list(range(11))])
    assert is_complete(folder)
    (folder / "dataset.json").unlink()
    assert not is_complete(folder)
    with pytest.raises(DataError, match=r"dataset\.json is missing"):
        PreparedRows.open(folder, 5)


def test_dtype_follows_the_vocabulary() -> None:
    assert token_dtype(65536) is np.uint16
    assert token_dtype(65537) is np.uint32


def test_dataset_json_says_what_is_there(tmp_path: Path) -> None:
    folder = make(tmp_path / "text", [[1, 2, 3]], dropped={"blank": 2})
    facts = json.loads((folder / "dataset.json").read_text())
    assert (facts["kind"], facts["tokens"], facts["dropped"]) == ("text", 3, {"blank": 2})
