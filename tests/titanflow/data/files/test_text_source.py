from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from titanflow.common.errors import DataError
from titanflow.config.keys.training import Data
from titanflow.data.files.text_source import check_text, load_text
from titanflow.data.parts.work import Work

TEXTS = ["First.\nSecond line.\n", "Größe 🙂\n", 'Third, with "quotes", commas\nand lines.\n']


@pytest.fixture
def cache(tmp_path: Path) -> Work:
    return Work(1, tmp_path / "cache")


@pytest.fixture
def formats(tmp_path: Path) -> dict[str, Data]:
    """The same three documents in every format that can be read."""
    folder = tmp_path / "txt"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    rows = datasets.Dataset.from_dict({"id": [1, 2, 3], "text": TEXTS})
    rows.to_json(tmp_path / "rows.jsonl")
    (tmp_path / "rows.json").write_text(json.dumps([{"text": text} for text in TEXTS]))
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_csv(tmp_path / "rows.csv")
    (tmp_path / "hub").mkdir()
    rows.to_parquet(tmp_path / "hub" / "train.parquet")
    rows.save_to_disk(tmp_path / "saved")
    found = {name: Data(path=str(tmp_path / f"rows.{name}")) for name in ("jsonl", "json", "parquet", "csv")}
    found |= {name: Data(dataset=str(tmp_path / name)) for name in ("hub", "saved")}
    return found | {"txt": Data(path=str(folder))}


@pytest.mark.parametrize("name", ["txt", "jsonl", "json", "parquet", "csv", "hub", "saved"])
def test_every_format_gives_the_same_documents(formats: dict[str, Data], cache: Work, name: str) -> None:
    source = load_text(formats[name], cache)
    assert list(source.rows["text"]) == TEXTS


@pytest.mark.parametrize(
    ("name", "unread"), [("jsonl", 3), ("json", 0), ("parquet", 3), ("csv", 3), ("hub", 3), ("txt", 0)]
)
def test_columns_that_nothing_reads_are_counted(formats: dict[str, Data], cache: Work, name: str, unread: int) -> None:
    assert load_text(formats[name], cache).unread == ({"id": unread} if unread else {})
    left = replace(formats[name], leave_out=["id"])
    assert load_text(left, cache).unread == ({"id (left out)": unread} if unread else {})


def test_only_rows_that_say_something_count(cache: Work, write_jsonl: Callable[..., Path]) -> None:
    rows = [{"text": "one", "title": "A"}, {"text": "two", "title": ""}, {"text": "three", "title": None, "url": "x"}]
    path = write_jsonl("a.jsonl", *rows)
    assert load_text(Data(path=str(path)), cache).unread == {"title": 1, "url": 1}
    assert load_text(Data(path=str(path), limit=2), cache).unread == {"title": 1}
    with pytest.raises(DataError, match=r"data\.leave_out: 'text' is what documents are read from"):
        load_text(Data(path=str(path), leave_out=["text"]), cache)


def test_a_row_knows_its_file_and_line(tmp_path: Path, cache: Work, write_jsonl: Callable[..., Path]) -> None:
    first = write_jsonl("a.jsonl", {"text": "one"}, {"text": "two"})
    first.write_text(first.read_text().replace("\n", "\n\n", 1))
    second = write_jsonl("b.jsonl", {"text": "three"})
    plain = tmp_path / "c.txt"
    plain.write_text("four")
    source = load_text(Data(path=[str(first), str(second), str(plain)]), cache)
    where = {text: source.origin(row) for row, text in enumerate(source.rows["text"])}
    assert where == {"one": f"{first}:1", "two": f"{first}:3", "three": f"{second}:1", "four": f"{plain}:1"}


def test_a_column_of_another_name_and_a_limit(cache: Work, write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl("a.jsonl", *({"body": f"text {number}"} for number in range(5)))
    source = load_text(Data(path=str(path), text_column="body", limit=2), cache)
    assert list(source.rows["text"]) == ["text 0", "text 1"]


def test_a_missing_column_names_those_that_there_are(cache: Work, write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl("a.jsonl", {"body": "x", "id": 1})
    with pytest.raises(DataError, match=r"data.text_column: .*a\.jsonl has no column 'text'; it has: body, id"):
        load_text(Data(path=str(path)), cache)


def test_broken_json_names_its_lines(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n{"text": \nnot json\n')
    with pytest.raises(DataError) as caught:
        load_text(Data(path=str(path)), cache)
    assert [problem.origin for problem in caught.value.problems] == [f"{path}:2", f"{path}:3"]
    assert "not JSON" in str(caught.value)


def test_text_that_is_not_utf8_names_its_file(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("Größe".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt:1: data.path: not UTF-8: .* at byte 2"):
        load_text(Data(path=str(path)), cache)


def test_a_broken_parquet_file_is_named(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"a\.parquet: data.path: can't be read: "):
        load_text(Data(path=str(path)), cache)


@pytest.mark.parametrize("data", [Data(name="x"), Data(name="x", path="a.txt", source="stdlib")])
def test_exactly_one_source_is_needed(cache: Work, data: Data) -> None:
    with pytest.raises(DataError, match=r"exactly one of data\.source, data\.path and data\.dataset"):
        load_text(data, cache)


def test_a_split_that_is_not_there_is_named(formats: dict[str, Data], cache: Work) -> None:
    formats["hub"].split = "dev"
    with pytest.raises(DataError, match=r"data.dataset: can't load .*Unknown split \"dev\""):
        load_text(formats["hub"], cache)


def test_nothing_is_written_outside_the_cache(formats: dict[str, Data], cache: Work, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    load_text(formats["jsonl"], cache)
    assert sorted(path for path in tmp_path.rglob("*") if cache.scratch not in [path, *path.parents]) == before


def test_rows_without_text_are_named(cache: Work, write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl("a.jsonl", {"text": "fine"}, {"text": None}, {"id": 3})
    data = Data(name="a", path=str(path))
    with pytest.raises(DataError) as caught:
        check_text(load_text(data, cache), data, 4)
    assert [problem.origin for problem in caught.value.problems] == [f"{path}:2", f"{path}:3"]


def test_a_column_of_numbers_is_refused(cache: Work, write_jsonl: Callable[..., Path]) -> None:
    data = Data(name="a", path=str(write_jsonl("a.jsonl", {"text": 3})))
    with pytest.raises(DataError, match=r"a\.jsonl:1: column 'text': found 3, which is int\n    expected: a text"):
        check_text(load_text(data, cache), data, 4)


def test_blank_text_is_refused(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "blank.txt"
    path.write_text(" \n\n")
    data = Data(name="blank", path=str(path))
    with pytest.raises(DataError, match=r"blank\.txt:1: data.text_column: there is nothing but blank space"):
        check_text(load_text(data, cache), data, 4)


def test_a_text_too_short_for_any_tokenizer_is_refused(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("12345")
    data = Data(name="short", path=str(path))
    source = load_text(data, cache)
    check_text(source, data, 5)
    with pytest.raises(DataError, match=r"short holds only 6 bytes[\s\S]*more than training.seq_len=6"):
        check_text(source, data, 6)


@pytest.mark.parametrize("name", ["d[1]", "d*", "a::b"])
def test_a_dataset_whose_name_is_a_pattern_is_refused(cache: Work, tmp_path: Path, name: str) -> None:
    for folder in (name, "d1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text(json.dumps({"text": folder}))
    with pytest.raises(DataError, match=r"data\.dataset: .* in its name\n[\s\S]*name it in data\.path"):
        load_text(Data(dataset=str(tmp_path / name)), cache)
    assert list(load_text(Data(path=str(tmp_path / name)), cache).rows["text"]) == [name]
