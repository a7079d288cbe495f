"""Files as people have them: each is read once, whole, and counted, or an error says where it can't be."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from odd_files import COMPRESS, NAMES, written

from titanflow.common.errors import DataError
from titanflow.config.keys.training import Data, Document
from titanflow.data import prepare as stage
from titanflow.data.chat.source import load_chats, read_rows
from titanflow.data.dataset_info import read_info
from titanflow.data.files.file_rows import rows_of, texts_of
from titanflow.data.files.sources import Source
from titanflow.data.files.text_source import load_text
from titanflow.data.parts.work import Work
from titanflow.runs.contract import StageRun

TEXT = "def read(path):\n    with open(path) as file:\n        return file.read()\n" * 20


def load(tmp_path: Path, path: Path | str | list[str], **options: Any) -> Source:
    return load_text(
        Data(name="d", path=path if isinstance(path, list) else str(path), **options), Work(1, tmp_path / "cache")
    )


def found(source: Source) -> dict[str, str]:
    """Each document by where it stands."""
    return {source.origin(row): text for row, text in enumerate(source.rows["text"])}


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".txt.zst"])
def test_a_name_is_a_name_in_every_format(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "in [a] ?*::folder" / "x"
    files = [written(folder / f"{name}{ending}", f"text of {name}") for name in (*NAMES, "a1", "Book 2")]
    place = ":row 1" if ending == ".parquet" else ":2" if ending == ".csv" else ":1"
    expected = {f"{file}{place}": f"text of {file.name.removesuffix(ending)}" for file in files}
    assert found(load(tmp_path, folder)) == expected
    for file in files:
        assert found(load(tmp_path, file)) == {f"{file}{place}": expected[f"{file}{place}"]}


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet", ".csv.xz"])
def test_a_name_is_a_name_for_chats_too(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "in [a] ?*::folder"
    files = [written(folder / f"{name}{ending}", name) for name in (*NAMES, "a1")]
    columns = {"prompt": "id", "completion": "text"}
    data = Data(kind="chat", path=str(folder), chat_format="prompt_completion", columns=columns)
    source = load_chats(data, Work(1, tmp_path / "cache"))
    assert sorted(row["text"] for row in read_rows(source.rows)) == sorted([*NAMES, "a1"])
    assert [file.name for file in source.files] == sorted(map(str, files))


def test_a_file_counts_once_whatever_leads_to_it(tmp_path: Path) -> None:
    file = written(tmp_path / "d" / "a.txt", "a")
    (tmp_path / "d" / "again.txt").symlink_to(file)
    source = load(
        tmp_path, [str(file), str(tmp_path / "d"), f"{tmp_path}/d/../d/*.txt", str(tmp_path / "d" / "again.txt")]
    )
    assert found(source) == {f"{file}:1": "a"}
    assert source.passed_over == {"the same file again": 5}


def test_what_a_folder_passes_over_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    for name in ("a.txt", "sub/b.MD", "c.pdf", "d.pdf", "README", ".hidden.txt", ".git/x.txt", "e.parquet.gz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "empty.txt").touch()
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "elsewhere").symlink_to(written(tmp_path / "other" / "z.txt", "z").parent)
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    source = load(tmp_path, folder)
    assert sorted(source.rows["text"]) == ["a.txt", "sub/b.MD"]
    assert source.passed_over == {
        **{".pdf": 2, "no ending": 1, ".parquet.gz": 1, "empty": 1, "hidden": 2},
        **{"linked folder": 2, "no file": 1},
    }


def test_a_loop_of_links_is_read_once_by_a_pattern_too(tmp_path: Path) -> None:
    file = written(tmp_path / "d" / "a.txt", "a")
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    assert found(load(tmp_path, f"{tmp_path}/d/**/*.txt")) == {f"{file}:1": "a"}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv"])
def test_compressed_files_are_read_in_all_their_parts(tmp_path: Path, ending: str, compression: str) -> None:
    file = written(tmp_path / f"a{ending}{compression}", "Größe")
    assert list(load(tmp_path, file).rows["text"]) == ["Größe"]
    if ending == ".jsonl":
        file.write_bytes(file.read_bytes() * 2)
        assert list(load(tmp_path, file).rows["text"]) == ["Größe"] * 2


@pytest.mark.parametrize("compression", COMPRESS)
def test_half_a_compressed_file_is_refused(tmp_path: Path, compression: str) -> None:
    rows = "".join(json.dumps({"text": f"{number * 7919 % 1009}"}) + "\n" for number in range(5000))
    file = tmp_path / f"a.jsonl{compression}"
    whole = COMPRESS[compression](rows.encode())
    for raw in (whole[: len(whole) // 2], b"plain text"):
        file.write_bytes(raw)
        with pytest.raises(DataError, match=rf"a\.jsonl\{compression}: data\.path: can't be read: "):
            load(tmp_path, file)


@pytest.mark.parametrize("compression", COMPRESS)
def test_what_stands_behind_a_compressed_file_is_read_or_refused(tmp_path: Path, compression: str) -> None:
    first, second = (COMPRESS[compression](b"%s\n" % word * 200_000) for word in (b"red", b"green"))
    file = tmp_path / f"d.txt{compression}"
    file.write_bytes(first + second[:2] + b"????" + second[6:])
    with pytest.raises(DataError, match=f"^{file}: data.path: can't be read: "):
        load(tmp_path, file)
    if compression != ".zst":
        file.write_bytes(first + bytes(64) + second + bytes(4))
        assert found(load(tmp_path, file)) == {f"{file}:1": "red\n" * 200_000 + "green\n" * 200_000}


@pytest.mark.parametrize(
    ("rows", "line", "cells"),
    [
        ("id,text\n1,one\n2,two,\n", 3, 3),
        ("id,text\n1,one,\n2,two\n", 3, 2),
        ("id,text,\n1,one,\n2,two,three\n", 3, 3),
        ("id,text\n1,one\n2\n3,three\n", 3, 1),
        ('id,text\n1,"one\nstill one"\n2,two,three\n', 4, 3),
        ("id,text\n1,one\n\n2,Köln, Bonn\n", 4, 3),
    ],
    ids=[
        "a trailing comma",
        "a missing one",
        "a cell without a name",
        "too short",
        "behind a cell of two lines",
        "a comma that isn't quoted",
    ],
)
def test_a_row_of_csv_that_is_not_as_its_header_is_refused(tmp_path: Path, rows: str, line: int, cells: int) -> None:
    (tmp_path / "a.csv").write_text(rows)
    for load_rows in (load_text, load_chats):
        data = Data(name="d", path=str(tmp_path / "a.csv"), kind="chat" if load_rows is load_chats else "text")
        with pytest.raises(
            DataError, match=rf"a\.csv:{line}: data\.path: the row has {cells} cells\n.*2, as in the header"
        ):
            load_rows(data, Work(1, tmp_path / "cache"))


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ('nr;"Länge; Maß";text\n1;3;"one\nstill; one"\n', {"nr": "1", "Länge; Maß": "3", "text": "one\nstill; one"}),
        ("nr\ttext\n1\tone, two; three\n", {"nr": "1", "text": "one, two; three"}),
        ('nr|text\n1|"a|b, c"\n', {"nr": "1", "text": "a|b, c"}),
        ('nr,"text"\n1,"a;b;c|d|e\tf\tg"\n', {"nr": "1", "text": "a;b;c|d|e\tf\tg"}),
        ('nr;text;\r\n1;"one\r\nstill one";\r\n', {"nr": "1", "text": "one\r\nstill one"}),
        ("nr,text\n1,one,\n", {"nr": "1", "text": "one"}),
        ("text,\none,\n", {"text": "one"}),
        ("text\none; two\n", {"text": "one; two"}),
    ],
    ids=["semicolon", "tab", "bar", "comma", "at each end", "at the rows' ends", "behind one column", "one column"],
)
def test_the_header_shows_what_parts_columns(tmp_path: Path, rows: str, found: dict[str, str]) -> None:
    (tmp_path / "a.csv").write_text(rows, encoding="utf-8-sig", newline="")
    assert [row for _, row in rows_of(tmp_path / "a.csv").rows] == [found]


def test_cells_are_read_as_they_are(tmp_path: Path) -> None:
    long = "x" * 200_000
    (tmp_path / "a.csv").write_text(f'\ufefftext,id,\nNA,1,\n"a ""b""\nc",2,\n{long},3,\n007,4,\n')
    assert found(load(tmp_path, tmp_path / "a.csv")) == {
        f"{tmp_path}/a.csv:{line}": text for line, text in {2: "NA", 3: 'a "b"\nc', 5: long, 6: "007"}.items()
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('id,text\n1,one\n2,"two\n3,three\n', r"a\.csv:3: data\.path: not CSV: unexpected end of data"),
        ("text,text\n1,2\n", r"a\.csv:1: data\.path: columns of the same name: 'text'"),
        ("id#text\n1#2\n", r"a\.csv has no column 'text'; it has: id#text"),
    ],
)
def test_csv_that_would_lose_rows_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path, tmp_path / "a.csv")


@pytest.mark.parametrize(("ending", "row"), [(".txt", "{}"), (".jsonl", '{{"text": "{}"}}'), (".csv", "{}")])
def test_rows_that_are_not_utf8_name_their_line(tmp_path: Path, ending: str, row: str) -> None:
    rows = ["text" if ending == ".csv" else row.format("first"), *(row.format(number) for number in range(5000))]
    raw = "\n".join([*rows, "", row.format("Größe"), row.format("last")]).encode("latin-1")
    (tmp_path / f"a{ending}").write_bytes(raw)
    with pytest.raises(DataError, match=rf"a\{ending}:5003: data\.path: not UTF-8: invalid start byte at byte \d+"):
        load(tmp_path, tmp_path / f"a{ending}")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for name in ("a.txt", "b.jsonl", "c.json", "d.csv", "e.txt.gz"):
        file = written(tmp_path / "d" / name.removesuffix(".gz"), "text")
        raw = b"\xef\xbb\xbf" + file.read_bytes()
        file.unlink()
        (tmp_path / "d" / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    assert list(load(tmp_path, tmp_path / "d").rows["text"]) == ["text"] * 5
    for document in ("paragraph", "line"):
        assert list(load(tmp_path, tmp_path / "d" / "a.txt", document=document).rows["text"]) == ["text"]


def test_text_of_every_type_of_parquet_stands_beside_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    written(folder / "a.jsonl", "one")
    for number, kind in enumerate([pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()]):
        table = pyarrow.table({"text": pyarrow.array(["two"], kind), "n": [1]})
        pyarrow.parquet.write_table(table, folder / f"b{number}.parquet")
    pyarrow.parquet.write_table(
        pyarrow.table({"text": pyarrow.array(["three"]).dictionary_encode()}), folder / "c.parquet"
    )
    assert list(load(tmp_path, folder).rows["text"]) == ["one", "two", "two", "two", "three"]
    pyarrow.parquet.write_table(pyarrow.table({"text": [3]}), folder / "d.parquet")
    with pytest.raises(DataError, match=r"column 'text' of .*d\.parquet is int64"):
        load(tmp_path, folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": 7}', r"column 'text': found 7, which is int"),
        ('{"text": ["a"]}', r"column 'text': found \['a'\], which is list"),
        ('["a", "b"]', r"data\.path: the row isn't a mapping but list"),
        ('"just a text"', r"data\.path: the row isn't a mapping but str"),
        ('{"text": "\\ud83d"}', r"column 'text': half a character \('\\ud83d'\) at place 0"),
        ('{"other": "x"}', r"data\.text_column: the row has no 'text'"),
    ],
)
def test_a_row_that_holds_no_text_is_named(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + row + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl:2: {message}"):
        load(tmp_path, tmp_path / "a.jsonl")


def test_plain_text_is_parted_as_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\nstill one\r\n\r\n  \r\ntwo\r\n\r\n")
    file = tmp_path / "a.txt"
    assert found(load(tmp_path, file)) == {f"{file}:1": "one\nstill one\n\n  \ntwo\n\n"}
    assert found(load(tmp_path, file, document="paragraph")) == {f"{file}:1": "one\nstill one", f"{file}:5": "two"}
    assert found(load(tmp_path, file, document="line")) == {
        f"{file}:{line}": text for line, text in {1: "one", 2: "still one", 5: "two"}.items()
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_as_it_does_in_every_other_document(tmp_path: Path, end: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffone\n \ntwo\u2028\x0b\nthree".replace("\n", end).encode())
    lines = {f"{file}:1": "one", f"{file}:3": "two\u2028\x0b", f"{file}:4": "three"}
    assert found(load(tmp_path, file, document="line")) == lines
    assert found(load(tmp_path, file)) == {f"{file}:1": "one\n \ntwo\u2028\x0b\nthree"}


def test_blank_lines_before_a_header_are_none(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("\n\ntext,id\none,1\n")
    assert found(load(tmp_path, file)) == {f"{file}:4": "one"}


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    columns = [pyarrow.array(["one"]), pyarrow.array(["two"])]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=["text", "text"]), file)
    for kind, read in (("text", load_text), ("chat", load_chats)):
        with pytest.raises(DataError, match=f"^{file}: data.path: columns of the same name: 'text'"):
            read(Data(name="d", kind=kind, path=str(file)), Work(1, tmp_path / "cache"))


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        written(tmp_path / "d" / name, name)
    (tmp_path / "d" / "d.parquet").write_bytes(b"no parquet")
    source = load(tmp_path, tmp_path / "d", limit=2)
    assert list(source.rows["text"]) == ["a.txt", "b.txt"]
    assert source.passed_over == {"behind the limit": 2}


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("document", ["file", "line"])
def test_utf_16_without_a_mark_is_not_read_as_utf_8(tmp_path: Path, name: str, document: Document) -> None:
    path = tmp_path / name
    path.write_bytes('text\n{"text": "one"}\n'.encode("utf-16-le"))
    with pytest.raises(DataError, match=r"a\.\w+:1: data\.path: a NUL stands in the text"):
        list(texts_of(path, document) if name == "a.txt" else rows_of(path).rows)


def test_every_file_of_a_folder_is_accounted_for(
    prepare_run: Callable[..., StageRun], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """All formats, compressions and odd names at once; the table is what ``dataset.json`` holds."""
    folder, expected = tmp_path / "all [kinds]", {}
    for name in ("plain", "a[1]", "a1", "b?*", "c::d"):
        for ending in (".txt", ".md", ".rst", ".py", ".jsonl", ".json", ".csv", ".parquet"):
            for compression in ("", *(COMPRESS if ending in (".txt", ".jsonl", ".json", ".csv") else ())):
                file = written(folder / f"{name}{ending}{compression}", f"{name}{ending}{compression} {TEXT}")
                expected[str(file)] = len(file.name) + 1 + len(TEXT)
    (folder / "blank.jsonl").write_text('{"text": " "}\n{"text": "said"}\n{"text": ""}\n')
    (folder / "empty.csv").write_text("text\n")
    (folder / "picture.png").write_text("no text")
    run = prepare_run({"name": "all", "path": str(folder)})
    stage.prepare(run)
    info = read_info(run.config["datasets"][0]["folder"])
    for file in info.files:
        print("{rows:3} rows {documents:3} documents {bytes:6} bytes {dropped} {name}".format(**file))
    found = {file["name"]: file for file in info.files}
    assert found.pop(str(folder / "blank.jsonl"))["dropped"] == {"blank": 2}
    assert found.pop(str(folder / "empty.csv"))["rows"] == 0
    assert {name: (file["rows"], file["documents"], file["bytes"]) for name, file in found.items()} == {
        name: (1, 1, size) for name, size in expected.items()
    }
    assert (info.documents, info.bytes) == (len(expected) + 1, sum(expected.values()) + len("said"))
    assert (info.dropped, info.passed_over) == ({"blank": 2}, {".png": 1})
    said = capfd.readouterr().err
    assert (
        f"all: {len(info.files)} files, {info.documents + 2} rows, {info.documents} documents, 2 left out: blank"
        in said
    )
    assert "all: files passed over: 1 × .png" in said
    assert "all: 40 of plain text, each file one document" in said
