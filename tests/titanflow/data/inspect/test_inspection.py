"""What a look at files finds, in files whose content is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_files import CHATS, dialogues, faq, messages, odd_csv, sentence, wiki, write_csv, zipped_texts

from titanflow.common.errors import DataError
from titanflow.data.inspect import inspection
from titanflow.data.inspect.inspection import Inspection, inspect_chats, inspect_text


def chats(path: Path, columns: dict[str, str] | None = None, roles: dict[str, str] | None = None) -> Inspection:
    return inspect_chats([str(path)], columns or {}, roles or {})


def refused(look: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as error:
        look()
    return str(error.value)


def test_a_csv_s_documents_are_in_its_longest_column(tmp_path: Path) -> None:
    path = odd_csv(tmp_path, 200)
    found = inspect_text([str(path)])
    (facts,) = found.facts
    assert found.data == {"text_column": "Der Aufsatz"}
    assert (found.rows, found.is_whole, facts.kind, facts.malformed) == (200, True, "CSV", [])
    assert facts.columns == {"Id": "unread", "Titel": "unread", "Der Aufsatz": "text"}
    assert found.size == sum(len(f"{sentence(n)}\n\n{sentence(-n)}".encode()) for n in range(200))


def test_a_named_column_goes_before_a_guess(tmp_path: Path) -> None:
    assert inspect_text([str(odd_csv(tmp_path))], "Titel").data == {"text_column": "Titel"}
    message = refused(lambda: inspect_text([str(tmp_path / "odd.csv")], "Title"))
    assert "no column 'Title'; it has: Id, Titel, Der Aufsatz" in message
    assert "did you mean Titel?" in message


def test_one_file_is_parted_where_blank_lines_are(tmp_path: Path) -> None:
    found = inspect_text([str(wiki(tmp_path, 300))])
    assert (found.data, found.rows, found.different) == ({"document": "paragraph"}, 300, 300)


def test_a_file_without_blank_lines_is_parted_into_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(map(sentence, range(80))), encoding="utf-8")
    found = inspect_text([str(path)])
    assert (found.data, found.rows) == ({"document": "line"}, 80)


def test_many_files_are_a_document_each(tmp_path: Path) -> None:
    found = inspect_text([str(zipped_texts(tmp_path, 60))])
    assert (found.data, found.rows, dict(found.found.passed_over)) == ({}, 60, {".pdf": 1})
    assert {facts.kind for facts in found.facts} == {"text, .gz"}


def test_of_many_files_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = inspect_text([str(zipped_texts(tmp_path, 60))])
    monkeypatch.setattr(inspection, "FILES", 20)
    found = inspect_text([str(tmp_path / "texts")])
    assert (len(found.facts), found.rows, found.is_whole) == (20, 60, False)
    assert found.size == pytest.approx(whole.size, rel=0.05)


@pytest.mark.parametrize("name", ["odd.csv", "wiki.txt", "messages.jsonl", "list.json"])
def test_of_a_large_file_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    odd_csv(tmp_path, 500)
    wiki(tmp_path, 500)
    rows = messages(tmp_path, 500).read_text(encoding="utf-8").splitlines()
    (tmp_path / "list.json").write_text(json.dumps(list(map(json.loads, rows))), encoding="utf-8")
    look = inspect_text if name in ("odd.csv", "wiki.txt") else lambda path: inspect_chats(path, {}, {})
    whole = look([str(tmp_path / name)])
    monkeypatch.setattr(inspection, "BYTES", 20_000)
    found = look([str(tmp_path / name)])
    assert (whole.rows, whole.is_whole, found.is_whole) == (500, True, False)
    assert sum(len(one.lengths) for one in found.facts) < 450
    assert found.rows == pytest.approx(500, rel=0.1)
    assert found.data == whole.data


EXPECTED: dict[str, dict[str, Any]] = {
    "sharegpt": {"chat_format": "sharegpt"},
    "messages": {"chat_format": "messages"},
    "dialogues": {
        "chat_format": "messages",
        "columns": {"messages": "talk", "role": "who", "content": "says"},
        "roles": {"Human": "user", "Bot": "assistant"},
    },
    "faq": {"chat_format": "prompt_completion", "columns": {"prompt": "Question", "completion": "Answer"}},
    "alpaca": {"chat_format": "alpaca"},
}


@pytest.mark.parametrize("name", CHATS)
def test_each_layout_of_conversations_is_recognised(tmp_path: Path, name: str) -> None:
    found = chats(CHATS[name](tmp_path))
    assert found.data == {"kind": "chat", **EXPECTED[name]}
    assert (found.rows, found.malformed, found.facts[0].roles["assistant"]) == (60, [], 60)


def test_malformed_rows_are_counted_with_their_lines_and_left_out(tmp_path: Path) -> None:
    found = chats(messages(tmp_path, 60, broken=2))
    assert found.data["malformed"] == "drop"
    lines = [problem.origin.rpartition(":")[2] for problem in found.malformed]
    assert lines == ["61", "62", "63", "64"]


def test_files_of_mostly_malformed_rows_are_refused(tmp_path: Path) -> None:
    message = refused(lambda: chats(messages(tmp_path, 20, broken=15)))
    assert "30 of 50 rows are no conversations" in message
    assert "messages.jsonl:21" in message


def test_columns_that_nobody_can_guess_are_named_with_the_way_to_name_them(tmp_path: Path) -> None:
    path = faq(tmp_path, ("Frage", "Antwort"))
    message = refused(lambda: chats(path))
    assert "it has: nr, Frage, Antwort" in message
    assert "--column prompt=Frage --column completion=Antwort" in message
    named = {"prompt": "Frage", "completion": "Antwort"}
    assert chats(path, named).data["columns"] == named
    assert "no column 'Fragen'" in refused(lambda: chats(path, {**named, "prompt": "Fragen"}))


def test_roles_that_nobody_can_guess_are_asked_for(tmp_path: Path) -> None:
    path = dialogues(tmp_path, names=("Alice", "Bert"))
    message = refused(lambda: chats(path))
    assert "the roles 'Alice', 'Bert'" in message
    assert "--role Alice=user" in message
    roles = {"Alice": "user", "Bert": "assistant"}
    assert chats(path, roles=roles).data["roles"] == roles


def test_text_given_as_conversations_and_the_reverse(tmp_path: Path) -> None:
    conversations, text = messages(tmp_path), wiki(tmp_path)
    assert f"--chats {conversations}" in refused(lambda: inspect_text([str(conversations)]))
    assert f"--text {text}" in refused(lambda: chats(text))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("nothing.txt", b"", "is empty"),
        ("numbers.csv", b"a,b\n1,2\n3,4\n", "no column that is clearly text; it has: a, b"),
        ("ragged.csv", b"text,b\nsome words,2\nmore\n", "ragged.csv:3"),
        ("pandas.csv", b",a,b\n0,1,2\n1,3,4\n", "it has: '', a, b"),
        ("headless.csv", f"1,{sentence(1) * 3}\n2,{sentence(2)}\n".encode(), "headless.csv seems to have no header"),
        ("excel.csv", b"sep=;\nid;text\n1;a\n2;a;b\n", "excel.csv:4"),
        ("whole.json", b'{"data": [{"text": "a"}, {"text": "b"}]}', "2 more stand in its column 'data'"),
        ("german.csv", b"id;text\n1;Wort\n2;Wort;Wort\n", "2, as in the header: id, text (parted by ';')"),
        ("image.txt", bytes(range(256)) * 9, "a NUL stands in the text"),
        ("latin.txt", "Ärger\n".encode("latin-1") * 99, "not UTF-8"),
        ("lines.jsonl", b'{"text": "good"}\n{"text": 7}\n{"text": null}\n', "lines.jsonl:2"),
        ("half.json", b'[{"text": "one"}, {"text', "not JSON"),
        ("header.csv", b"text,b\n", "has no rows"),
        ("letter.doc", b"Dear", "an ending that isn't known: .doc"),
    ],
)
def test_files_that_hold_no_text(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    message = refused(lambda: inspect_text([str(tmp_path / name)]))
    assert expected in message
    assert "--text" in message or f"{name}:" in message


def test_what_is_not_there_and_a_folder_without_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refused(lambda: inspect_text([str(tmp_path / "empty"), str(tmp_path / "no.txt")]))
    assert "empty has no file to read" in message
    assert "no.txt isn't there" in message


def test_files_that_must_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "other.csv", ["body"], [[sentence(n)] for n in range(60)])
    message = refused(lambda: inspect_text([str(odd_csv(tmp_path)), str(tmp_path / "other.csv")]))
    assert "odd.csv: Der Aufsatz" in message
    assert "other.csv: body" in message
    two = [str(messages(tmp_path)), str(faq(tmp_path))]
    assert "prompt_completion" in refused(lambda: inspect_chats(two, {}, {}))


def test_an_excel_file_says_its_separator_itself(tmp_path: Path) -> None:
    path = odd_csv(tmp_path)
    path.write_text(f"sep=;\r\n{path.read_text(encoding='utf-8')}", encoding="utf-8-sig")
    assert (inspect_text([str(path)]).data, inspect_text([str(path)]).rows) == ({"text_column": "Der Aufsatz"}, 200)


def test_a_description_is_no_document_where_a_longer_text_is(tmp_path: Path) -> None:
    rows = [[sentence(n), sentence(n) * 4] for n in range(60)]
    path = write_csv(tmp_path / "papers.csv", ["abstract", "the paper"], rows)
    assert inspect_text([str(path)]).data == {"text_column": "the paper"}
    path = write_csv(tmp_path / "abstracts.csv", ["title", "abstract"], [[row[0][:20], row[0]] for row in rows])
    assert inspect_text([str(path)]).data == {"text_column": "abstract"}


def asked(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"What is {n}?"}]


def answered(n: int) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": sentence(n)}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            lambda n: {"human": f"What is {n}?", "gpt": sentence(n)},
            {"chat_format": "prompt_completion", "columns": {"prompt": "human", "completion": "gpt"}},
        ),
        (lambda n: {"prompt": asked(n), "completion": answered(n)}, {"chat_format": "prompt_completion"}),
        (
            lambda n: {"prompt": asked(n), "chosen": answered(n), "rejected": answered(-n)},
            {"chat_format": "prompt_completion", "columns": {"completion": "chosen"}},
        ),
        (
            lambda n: {"prompt": asked(n), "response": sentence(n)},
            {"chat_format": "prompt_completion", "columns": {"completion": "response"}},
        ),
        (
            lambda n: {"prompt": f"What is {n}?", "chosen": asked(n) + answered(n), "rejected": asked(n)},
            {"chat_format": "messages", "columns": {"messages": "chosen"}},
        ),
    ],
)
def test_an_answer_is_never_read_without_its_question(
    tmp_path: Path, row: Callable[[int], dict[str, Any]], expected: dict[str, Any]
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(60)), encoding="utf-8")
    found = chats(path)
    assert found.data == {"kind": "chat", **expected}
    assert found.facts[0].roles == {"user": 60, "assistant": 60}


@pytest.mark.parametrize("row", [{"chosen": "Human: a", "rejected": "Human: b"}, {"dialog": ["a", "b"]}])
def test_a_way_to_name_columns_is_only_told_where_two_can_be_meant(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    message = refused(lambda: chats(path))
    assert "--column" not in message
    assert '{"messages": [{"role": "user"' in message
