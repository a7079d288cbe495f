from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from chat_samples import call, turns

from titanflow.common.errors import DataError
from titanflow.config.keys.training import Data
from titanflow.data.chat.layout import ChatFormat, Unreadable
from titanflow.data.chat.source import load_chats, read_rows
from titanflow.data.files.sources import Source
from titanflow.data.parts.work import Work

CHATS = [turns("Hi", "Hello"), turns("Größe \u2028 🙂\n", "line\x85end\r\n"), turns("Q", "A", "B", "C", system="S")]
ROWS = [{"messages": chat} for chat in CHATS]


@pytest.fixture
def cache(tmp_path: Path) -> Work:
    return Work(1, tmp_path / "cache")


def load(cache: Work, *paths: Path, **config: Any) -> Source:
    names = [str(path) for path in paths]
    return load_chats(Data(kind="chat", name="c", path=names, **config), cache)


def places(source: Source) -> dict[str, Any]:
    """Each row by where it stands."""
    return {source.origin(number): row for number, row in enumerate(read_rows(source.rows))}


@pytest.fixture
def formats(tmp_path: Path, write_jsonl: Callable[..., Path]) -> dict[str, Data]:
    """The same conversations in every format that can be read."""
    rows = datasets.Dataset.from_dict({"id": [1, 2, 3], "messages": CHATS})
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    rows.to_parquet(tmp_path / "rows.parquet")
    texts = datasets.Dataset.from_dict({"messages": [json.dumps(chat) for chat in CHATS]})
    texts.to_csv(tmp_path / "rows.csv")
    (tmp_path / "hub").mkdir()
    rows.to_parquet(tmp_path / "hub" / "train.parquet")
    rows.save_to_disk(tmp_path / "saved")
    files = {
        "jsonl": write_jsonl("rows.jsonl", *ROWS),
        **{name: tmp_path / f"rows.{name}" for name in ("json", "parquet", "csv")},
    }
    found = {name: Data(kind="chat", name="c", path=str(path)) for name, path in files.items()}
    return found | {name: Data(kind="chat", name="c", dataset=str(tmp_path / name)) for name in ("hub", "saved")}


@pytest.mark.parametrize("name", ["jsonl", "json", "parquet", "csv", "hub", "saved"])
def test_every_format_gives_the_same_conversations(formats: dict[str, Data], cache: Work, name: str) -> None:
    data = formats[name]
    rows = list(read_rows(load_chats(data, cache).rows))
    assert [ChatFormat.of(data).conversation(row).messages for row in rows] == CHATS


def test_a_row_knows_its_file_and_line(cache: Work, tmp_path: Path, write_jsonl: Callable[..., Path]) -> None:
    first = tmp_path / "a.jsonl"
    first.write_text("\n" + json.dumps(ROWS[0]) + "\n\n  \n" + json.dumps(ROWS[1]) + "\r\n")
    second = write_jsonl("b.jsonl", ROWS[2], ROWS[0])
    third = tmp_path / "c.json"
    third.write_text("[\n" + ",\n\n".join(map(json.dumps, ROWS[1:])) + "]")
    fourth = tmp_path / "d.json"
    fourth.write_text(json.dumps(ROWS[1:]))
    assert places(load(cache, first, second, third, fourth)) == {
        f"{first}:2": ROWS[0],
        f"{first}:5": ROWS[1],
        f"{second}:1": ROWS[2],
        f"{second}:2": ROWS[0],
        f"{third}:2": ROWS[1],
        f"{third}:4": ROWS[2],
        f"{fourth}:row 1": ROWS[1],
        f"{fourth}:row 2": ROWS[2],
    }


def test_a_folder_of_files_is_read_in_order(cache: Work, tmp_path: Path) -> None:
    for number, row in enumerate(ROWS):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"{number}.jsonl").write_text(json.dumps(row))
    assert list(places(load(cache, tmp_path / "many")).values()) == ROWS


def test_keys_that_arrow_filled_in_are_no_keys(cache: Work, tmp_path: Path) -> None:
    chat = [*turns("Hi"), {**call("weather", city="Köln"), "content": None}, {"role": "tool", "content": "sun"}]
    other = [*turns("Hi"), call("stars", where={"x": 1}), *turns("", "Hello")[1:]]
    datasets.Dataset.from_dict({"messages": [chat, other], "tools": [None, "[]"]}).to_parquet(tmp_path / "a.parquet")
    first, second = places(load(cache, tmp_path / "a.parquet")).values()
    assert "tools" not in first
    assert [set(message) for message in first["messages"]] == [
        {"role", "content"},
        {"role", "content", "tool_calls"},
        {"role", "content"},
    ]
    functions = [row["messages"][1]["tool_calls"][0]["function"] for row in (first, second)]
    assert [one["arguments"] for one in functions] == [{"city": "Köln"}, {"where": {"x": 1}}]


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_the_arguments_of_different_calls_stay_apart(cache: Work, tmp_path: Path, suffix: str) -> None:
    # Columns of Arrow would hold city, days and when for each of them, or refuse 2 beside "two".
    calls = [call("a", city="Köln"), call("b", days=2), call("c", days="two", when=None), call("d", days=[{"x": [1]}])]
    rows = [{"messages": [*turns("Hi"), one]} for one in calls]
    path = tmp_path / f"a.{suffix}"
    path.write_text("\n".join(map(json.dumps, rows)) if suffix == "jsonl" else json.dumps(rows))
    assert list(places(load(cache, path)).values()) == rows


def test_a_line_that_is_not_json_is_one_rows_problem(cache: Work, write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl("a.jsonl", ROWS[0], ROWS[1])
    path.write_text(path.read_text() + "{'messages': []}\n" + "[" * 100_000 + "\n")
    found = places(load(cache, path))
    assert found[f"{path}:1"] == ROWS[0]
    for line in (3, 4):
        assert isinstance(found[f"{path}:{line}"], Unreadable)
        assert found[f"{path}:{line}"].reason.startswith("not JSON: ")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_what_is_not_utf8_names_its_file_and_place(cache: Work, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b'\n{"messages": "' + "Größe".encode("latin-1") + b'"}\n')
    with pytest.raises(DataError, match=rf"a\.{suffix}:\d: data\.path: not UTF-8: .* at byte \d+"):
        load(cache, path)


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_list_of_rows_and_a_row_a_line_are_read_whatever_the_ending_says(
    cache: Work, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    for text in (json.dumps(ROWS), "\n" + json.dumps(ROWS, indent=1), "\n".join(map(json.dumps, ROWS))):
        path.write_text(text)
        assert list(places(load(cache, path)).values()) == ROWS


def test_a_json_file_of_one_row_is_one_row(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for indent in (None, 2):
        path.write_text(json.dumps(ROWS[0], indent=indent))
        assert places(load(cache, path)) == {f"{path}:1": ROWS[0]}


def test_half_an_array_is_said(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[\n" + json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1]) + "]")
    with pytest.raises(DataError, match=r"a\.json:3: data\.path: not JSON: Expecting ','[\s\S]*a list of rows"):
        load(cache, path)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"data\.path: c has no rows"):
        load(cache, path)


@pytest.mark.parametrize("layout", ["sharegpt", "alpaca", "prompt_completion"])
def test_a_wrong_declaration_is_one_message_with_a_hint(
    cache: Work, write_jsonl: Callable[..., Path], layout: Any
) -> None:
    path = write_jsonl("a.jsonl", *ROWS * 50)
    with pytest.raises(DataError) as caught:
        load(cache, path, chat_format=layout)
    assert len({problem.message.partition(";")[0] for problem in caught.value.problems}) <= 2
    assert str(caught.value).count("the row has: messages") == len(caught.value.problems)
    assert f"{path}:1: data.columns: there is no column " in str(caught.value)
    assert "set data.columns, or data.chat_format to one of messages, sharegpt" in str(caught.value)


def test_a_first_row_that_lacks_one_column_of_two_is_that_rows_problem(
    cache: Work, write_jsonl: Callable[..., Path]
) -> None:
    path = write_jsonl("a.jsonl", {"prompt": "Q"}, {"prompt": "Q", "completion": "A"})
    assert len(places(load(cache, path, chat_format="prompt_completion"))) == 2


def test_files_of_different_kinds_are_read_together(
    cache: Work, tmp_path: Path, write_jsonl: Callable[..., Path]
) -> None:
    datasets.Dataset.from_dict({"messages": CHATS}).to_parquet(tmp_path / "b.parquet")
    found = places(load(cache, write_jsonl("a.jsonl", *ROWS[:1]), tmp_path / "b.parquet"))
    assert list(found.values()) == [ROWS[0], *ROWS]
    assert list(found)[1:] == [f"{tmp_path / 'b.parquet'}:row {row}" for row in (1, 2, 3)]


def test_columns_of_different_types_are_read_each_as_its_file_has_it(cache: Work, tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"prompt": ["Q"], "completion": ["A"]}).to_parquet(tmp_path / "a.parquet")
    datasets.Dataset.from_dict({"prompt": [3], "completion": ["A"]}).to_parquet(tmp_path / "b.parquet")
    source = load(cache, tmp_path / "a.parquet", tmp_path / "b.parquet", chat_format="prompt_completion")
    assert [row["prompt"] for row in places(source).values()] == ["Q", 3]


def test_plain_text_is_refused(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Hi")
    with pytest.raises(DataError, match=r"a\.txt is plain text[\s\S]*\.jsonl"):
        load(cache, path)


def test_a_broken_parquet_file_is_named(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"a\.parquet: data.path: can't be read: "):
        load(cache, path)


def test_blank_lines_alone_are_no_rows(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n \n")
    with pytest.raises(DataError, match=r"data\.path: c has no rows"):
        load(cache, path)


def test_a_limit_takes_the_first(cache: Work, write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl("a.jsonl", *ROWS)
    assert list(places(load(cache, path, limit=2)).values()) == ROWS[:2]
    # Blank lines are no rows.
    path.write_text("\n\n\n" + path.read_text())
    assert places(load(cache, path, limit=2)) == {f"{path}:4": ROWS[0], f"{path}:5": ROWS[1]}


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_byte_order_mark_is_no_text(cache: Work, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text(json.dumps(ROWS[0]) if suffix == "jsonl" else json.dumps(ROWS[:1]), encoding="utf-8-sig")
    assert list(places(load(cache, path)).values()) == ROWS[:1]


@pytest.mark.parametrize("more", [{}, {"path": "a.jsonl", "source": "stdlib_chats"}])
def test_exactly_one_source_is_needed(cache: Work, more: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"exactly one of data\.source, data\.path and data\.dataset"):
        load_chats(Data(kind="chat", name="c", **more), cache)


def test_the_built_in_conversations(cache: Work) -> None:
    found = load_chats(Data(kind="chat", name="c", source="stdlib_chats", limit=3), cache)
    assert len(found.rows) == 3
    with pytest.raises(DataError, match=r"there are no chats in the source stdlib"):
        load_chats(Data(kind="chat", name="c", source="stdlib"), cache)


def test_an_undeclared_column_is_refused_before_anything_is_read(cache: Work) -> None:
    with pytest.raises(DataError, match=r"data\.columns: messages has no 'chat'"):
        load_chats(Data(kind="chat", name="c", path="/nowhere.jsonl", columns={"chat": "x"}), cache)


def test_a_csvs_cells_are_texts(cache: Work, tmp_path: Path) -> None:
    path = tmp_path / "sums.csv"
    path.write_text('question,answer\n"What is 3, and 4?",7\nNA or None?,NA\n')
    data = Data(
        **{"kind": "chat", "name": "c", "path": str(path), "chat_format": "prompt_completion"},
        columns={"prompt": "question", "completion": "answer"},
    )
    rows = [ChatFormat.of(data).conversation(row) for row in read_rows(load_chats(data, cache).rows)]
    assert [row.problems for row in rows] == [[], []]
    said = [[message["content"] for message in row.messages] for row in rows]
    assert said == [["What is 3, and 4?", "7"], ["NA or None?", "NA"]]
