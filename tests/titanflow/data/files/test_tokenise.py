from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from titanflow.config.keys.training import Data
from titanflow.data.dataset_info import read_info
from titanflow.data.files.sources import Source, SourceFile
from titanflow.data.files.tokenise_text import text_pieces, write_text
from titanflow.data.parts.work import Work
from titanflow.data.prepared import PreparedRows
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer


def source(column: str, values: list[Any]) -> Source:
    return Source(Dataset.from_dict({column: values}), [SourceFile("rows")])


@pytest.mark.parametrize("processes", [1, 2])
def test_documents_follow_one_another_with_the_end_of_text_between(
    tokenizer: LoadedTokenizer, tmp_path: Path, processes: int
) -> None:
    texts = ["def read(path):\n    return 1\n", "  \n", "Größe 🙂 <|endoftext|>", "last"]
    work = Work(processes, tmp_path)
    write_text(source("text", texts), Data(name="t"), tokenizer.folder, "f", tmp_path, work)
    expected = [[*tokenizer.encode(text), 0] for text in texts if text.strip()]
    assert np.load(tmp_path / "tokens.npy").tolist() == [token for document in expected for token in document]
    assert np.diff(np.load(tmp_path / "offsets.npy")).tolist() == [len(document) for document in expected]
    info = read_info(tmp_path)
    assert (info.documents, info.dropped, info.dtype) == (3, {"blank": 1}, "uint16")
    assert info.bytes == sum(len(text.encode()) for text in texts if text.strip())
    assert info.longest == max(map(len, expected))


def test_text_in_rows_is_the_text(tokenizer: LoadedTokenizer, tmp_path: Path, texts: list[str]) -> None:
    write_text(source("text", texts), Data(name="t"), tokenizer.folder, "f", tmp_path, Work(None, tmp_path))
    rows = PreparedRows.open(tmp_path, 8)
    stream = [rows.row(0)[0][0], *(token for index in range(len(rows)) for token in rows.row(index)[1])]
    text = tokenizer.backend.decode([int(token) for token in stream], skip_special_tokens=False)
    assert "<|endoftext|>".join(texts).startswith(text[:-1])
    assert len(text) > 100


def test_pieces_are_the_text_and_its_tokens(tokenizer: LoadedTokenizer) -> None:
    text = "def f(x):\n    return x\n\n\nword\nother  \n next\n" * 50
    for size in (1, 7, 100, 10_000):
        pieces = list(text_pieces(text, tokenizer.text, size))
        assert "".join(pieces) == text
        assert (len(pieces) > 1) == (size < len(text))
        assert [token for piece in pieces for token in tokenizer.encode(piece)] == tokenizer.encode(text)


@pytest.mark.parametrize("text", ["", "x" * 50, "a \n\n b " * 9, "\n" * 20])
def test_a_text_without_a_safe_place_stays_whole(tokenizer: LoadedTokenizer, text: str) -> None:
    assert list(text_pieces(text, tokenizer.text, 5)) == [text]
