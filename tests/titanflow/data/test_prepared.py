from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from titanflow.data.prepared import (
    IGNORE_INDEX,
    DatasetInfo,
    PreparedRows,
    is_complete,
    read_info,
    staged_folder,
    token_dtype,
    write_rows,
)
from titanflow.errors import DataError


def make(folder: Path, documents: list[list[int]], trained: list[list[bool]] | None = None, **facts: Any) -> Path:
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
        **facts,
    )
    mask = None if trained is None else [np.asarray(row, np.bool_) for row in trained]
    with staged_folder(folder) as staged:
        write_rows(staged, info, tokens, mask, np.asarray([len(document) for document in documents]))
    return folder


def test_text_rows_tile_the_stream(tmp_path: Path) -> None:
    stream = list(range(100, 123))
    rows = PreparedRows.open(make(tmp_path / "text", [stream[:9], stream[9:]]), seq_len=5)
    assert len(rows) == 4
    for index in range(4):
        input_ids, labels, _ = rows.row(index)
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
    input_ids, labels, _ = rows.row(0)
    assert input_ids.tolist() == [7, 8, 9, 3, 3, 3]
    assert labels.tolist() == [IGNORE_INDEX, 9, 10, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX]
    input_ids, labels, _ = rows.row(1)
    assert input_ids.tolist() == [5, 3, 3, 3, 3, 3]
    assert labels.tolist() == [6] + [IGNORE_INDEX] * 5


def test_a_trained_pad_token_keeps_its_label(tmp_path: Path) -> None:
    folder = make(tmp_path / "chat", [[7, 3, 3]], [[False, True, True]], seq_len=4)
    assert PreparedRows.open(folder, 4).row(0)[1].tolist() == [3, 3, IGNORE_INDEX, IGNORE_INDEX]


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


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_folder(tmp_path / "data" / "text") as staged:
            (staged / "tokens.npy").write_bytes(b"half")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        fail()
    assert list((tmp_path / "data").iterdir()) == []


def test_the_first_of_two_writers_stays(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    with staged_folder(folder) as mine:
        make(folder, [[1, 2, 3]])
        (mine / "dataset.json").write_text("{}")
    assert read_info(folder).tokens == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]


def test_an_incomplete_folder_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "tokens.npy").write_bytes(b"half")
    make(folder, [[1, 2, 3]])
    assert read_info(folder).tokens == 3


def test_leftovers_of_dead_processes_are_swept_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    prefix = f".text.{socket.gethostname()}."
    leftovers = {name: tmp_path / f"{prefix}{name}" for name in (f"{dead}-x", f"{os.getppid()}-x")}
    leftovers["elsewhere"] = tmp_path / f".text.another-machine.{dead}-x"
    for leftover in leftovers.values():
        leftover.mkdir()
    make(tmp_path / "text", [[1, 2, 3]])
    assert {name for name, leftover in leftovers.items() if leftover.exists()} == {f"{os.getppid()}-x", "elsewhere"}


def test_dataset_json_says_what_is_there(tmp_path: Path) -> None:
    folder = make(tmp_path / "text", [[1, 2, 3]], dropped={"blank": 2})
    facts = json.loads((folder / "dataset.json").read_text())
    assert (facts["kind"], facts["tokens"], facts["dropped"]) == ("text", 3, {"blank": 2})
