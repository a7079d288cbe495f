"""Prepared data is the same to the byte, whatever the number of parts and of processes that made it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from titanflow.common.digests import folder_digests
from titanflow.common.errors import DataError, StageLost
from titanflow.data import prepare as stage
from titanflow.data.files.file_rows import has_row_a_line
from titanflow.data.files.read_source import _Reading
from titanflow.data.files.spans import spans
from titanflow.data.parts import work
from titanflow.runs.contract import StageRun

pytestmark = pytest.mark.slow

ROWS = 200
TEXTS = [f"Number {n} — größer\u2028than\r before,\nwith «🙂» {'and more ' * (n % 7)}" for n in range(ROWS)]
ANSWER = {"role": "assistant", "content": "An answer."}
CHATS = [{"messages": [{"role": "user", "content": f"{text[:30]}?"}, ANSWER], "id": text[:9]} for text in TEXTS * 4]
UNDIVIDED = ("list.json", "old.txt", "packed.jsonl.gz")
LINES = "\n".join(json.dumps({"text": text, "n": n}, ensure_ascii=False) for n, text in enumerate(TEXTS))


def paragraphs(end: str) -> str:
    gaps = (end * 2, f"{end} \t{end}{end}", f"{end}{end}  ", end * 4)
    texts = [text.replace("\r", " ").replace("\n", end) for text in TEXTS]
    return "".join(text + gaps[number % len(gaps)] for number, text in enumerate(texts))


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Data configs in every format, whose files can be divided or not."""
    files: dict[str, str | bytes] = {
        # A byte order mark is none in the middle of a file.
        "mark.jsonl": "\ufeff" + "\n\r\n\n".join(LINES.split("\n")) + "\n",
        "rows.json": "\n" + LINES,
        "list.json": json.dumps([{"text": text} for text in TEXTS]),
        "lines.txt": "\n".join(f"\ufeff{text}" for text in TEXTS),
        "unix.txt": paragraphs("\n"),
        "dos.txt": paragraphs("\r\n"),
        "old.txt": paragraphs("\r"),
        "quoted.csv": "text\n" + "".join(f'"{text}"\n' for text in TEXTS),
        "packed.jsonl.gz": gzip.compress(LINES.encode(), mtime=0),
        "chats.jsonl": "\n".join(map(json.dumps, [*CHATS[:40], {"messages": []}, *CHATS[40:]])),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for number, text in enumerate(TEXTS[:30]):
        (tmp_path / f"small-{number}.md").write_text(text)
    groups = tmp_path / "groups.parquet"
    parquet.write_table(pyarrow.table({"text": TEXTS, "n": range(len(TEXTS))}), groups, row_group_size=9)
    found = {name: {"name": name.replace(".", "-"), "path": str(tmp_path / name)} for name in [*files, groups.name]}
    found["small"] = {"name": "small", "path": str(tmp_path / "small-*.md")}
    for name in ("unix.txt", "dos.txt", "old.txt"):
        found[name]["document"] = "paragraph"
    found["lines.txt"]["document"] = "line"
    found["chats.jsonl"] |= {"kind": "chat", "malformed": "drop", "packing": "best_fit"}
    found["divided"] = found["mark.jsonl"] | {"name": "divided", "held_out": {"dev": 0.2, "test": 9}, "part": "dev"}
    found["limited"] = found["mark.jsonl"] | {"name": "limited", "limit": 77}
    return found


def made(run: StageRun) -> dict[str, str]:
    """The digests of everything that a preparation makes, which is put aside."""
    stage.prepare(run)
    folder = Path(run.config["workspace"]) / "data"
    found = folder_digests(folder)
    folder.rename(folder.with_name(f"data-{sum(1 for _ in folder.parent.iterdir())}"))
    assert sorted(path.name for path in run.folder.iterdir()) == ["run.yaml"]
    return found


def test_any_number_of_parts_and_processes_gives_the_same_bytes(
    prepare_run: Callable[..., StageRun],
    sources: dict[str, dict[str, Any]],
    tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [sources[name] for name in sources if name not in UNDIVIDED]
    options = {"seq_len": 160, "tokenizer": str(tokenizer_folder)}
    whole = made(prepare_run(*asked, **options, num_proc=1))
    for size, processes in ((4000, 2), (1500, 1)):
        monkeypatch.setattr(work, "PART_BYTES", size)
        assert made(prepare_run(*asked, **options, num_proc=processes)) == whole


@pytest.mark.parametrize(
    ("name", "divided"),
    [
        *(("mark.jsonl", True), ("rows.json", True), ("lines.txt", True), ("unix.txt", True), ("dos.txt", True)),
        *(("groups.parquet", True), ("list.json", False), ("quoted.csv", False), ("packed.jsonl.gz", False)),
        # Without a line feed no place is safe.
        ("old.txt", False),
    ],
)
def test_large_files_are_divided_where_rows_end(
    sources: dict[str, dict[str, Any]], tmp_path: Path, name: str, divided: bool
) -> None:
    document = sources[name].get("document", "file")
    assert (len(spans(tmp_path / name, document, has_row_a_line, 400)) > 5) == divided


def test_a_fault_far_behind_is_told_with_its_own_line(
    prepare_run: Callable[..., StageRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.dumps({"text": text}) for text in TEXTS]
    (tmp_path / "a.jsonl").write_text("\n\n".join([*rows[:100], '{"text": 7}', *rows[100:], "{"]))
    (tmp_path / "b.jsonl").write_text("no JSON")
    run = prepare_run({"name": "faulty", "path": [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]})
    monkeypatch.setattr(work, "PART_BYTES", 500)
    with pytest.raises(DataError) as refused:
        stage.prepare(run)
    assert [problem.origin for problem in refused.value.problems] == [
        f"{tmp_path}/a.jsonl:{n}" for n in (201, 2 * ROWS + 3)
    ]
    assert sorted(path.name for path in run.folder.iterdir()) == ["run.yaml"]


class Lost:
    """Ends a preparation when so many parts of its files have been read; -1: never."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.at, self.made = at, 0
        make = _Reading.__call__

        def counted(reading: _Reading, number: int, path: Path) -> Any:
            if self.made == self.at:
                raise StageLost("a process was killed")
            self.made += 1
            return make(reading, number, path)

        monkeypatch.setattr(_Reading, "__call__", counted)


def test_a_preparation_goes_on_from_the_parts_that_are_finished(
    prepare_run: Callable[..., StageRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    monkeypatch.setattr(work, "PART_BYTES", 1000)
    run = prepare_run({"name": "rows", "path": str(path)}, num_proc=1)
    undisturbed = made(run)
    lost = Lost(monkeypatch, 3)
    with pytest.raises(StageLost):
        stage.prepare(run)
    assert len(list((run.folder / "parts").glob("*/*.arrow"))) == 3
    lost.at = -1
    assert made(run) == undisturbed
    # Each part once: the tokenizer's text and the dataset's are the same rows, which are read for both.
    assert lost.made % len(spans(path, "file", has_row_a_line, 1000)) == 0


def test_parts_of_a_file_that_changed_meanwhile_are_made_again(
    prepare_run: Callable[..., StageRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    monkeypatch.setattr(work, "PART_BYTES", 1000)
    run = prepare_run({"name": "rows", "path": str(path)}, num_proc=1)
    lost = Lost(monkeypatch, 3)
    with pytest.raises(StageLost):
        stage.prepare(run)
    lost.at, lost.made = -1, 0
    path.write_text(LINES.replace("Number", "Nombre"))
    stage.prepare(run)
    assert lost.made >= len(spans(path, "file", has_row_a_line, 1000))
