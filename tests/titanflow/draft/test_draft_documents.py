"""Text of too few documents to hold some out, and of one that decides."""

import json
from pathlib import Path

import pytest
from drafts import draft
from own_files import sentence

from titanflow.common.errors import DataError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("texts", "name", "expected"),
    [
        ([sentence(1) * 500], "one.txt", r"1 document \(a document here is a line\)"),
        ([sentence(1) * 500, sentence(2) * 500], "two.jsonl", r"2 documents \(a document here is a row\)"),
        ([sentence(1)] * 300, "same.txt", r"300 documents, all alike \(a document here is a paragraph\)"),
        ([sentence(1), sentence(2)] * 150, "same.jsonl", "300 documents, 2 of them different"),
    ],
)
def test_text_that_leaves_nothing_to_hold_out(tmp_path: Path, texts: list[str], name: str, expected: str) -> None:
    path = write_texts(tmp_path / name, texts)
    with pytest.raises(DataError, match=expected):
        draft(text=path)


def write_texts(path: Path, texts: list[str]) -> Path:
    """Paragraphs, or lines of JSON."""
    lines = [json.dumps({"text": text}) for text in texts]
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else "\n\n".join(texts), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("texts", "notes"),
    [
        ([sentence(n) for n in range(3000)], []),
        ([sentence(0) * 50000, *(sentence(n) for n in range(1, 3000))], ["one document has 94 % of the text"]),
        ([sentence(n) * 100 for n in range(4)], ["2 of 4 documents are held out"]),
    ],
)
def test_a_document_that_decides_and_held_out_ones_that_are_many_are_told(
    tmp_path: Path, texts: list[str], notes: list[str]
) -> None:
    found = draft(text=write_texts(tmp_path / "texts.jsonl", texts))[0].notes
    assert [note.split(",")[0] for note in found] == notes
