from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from titanflow.common.errors import DataError
from titanflow.data import fingerprints
from titanflow.data.fingerprints import data_fingerprint, data_name, prepared_folder, tokenizer_fingerprint


@pytest.fixture
def text(write_jsonl: Callable[..., Path]) -> dict[str, Any]:
    return {"name": "a", "path": str(write_jsonl("a.jsonl", {"text": "one"}, {"text": "two"}))}


def test_only_the_content_counts_not_where_it_is_or_what_it_is_called(text: dict[str, Any], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(Path(text["path"]).read_bytes())
    assert data_fingerprint(text, "t") == data_fingerprint({"name": "b", "path": str(moved)}, "t")


def test_the_same_bytes_under_another_ending_are_other_rows(text: dict[str, Any], tmp_path: Path) -> None:
    plain = tmp_path / "a.txt"
    plain.write_bytes(Path(text["path"]).read_bytes())
    parted = {**text, "path": str(plain), "document": "line"}
    found = [data_fingerprint(one, "t") for one in (text, {**text, "path": str(plain)}, parted)]
    assert len(set(found)) == 3


def test_a_way_to_part_plain_text_is_refused_where_there_is_none(text: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"data\.document: found 'line', and none of 1 files is plain text"):
        data_fingerprint({**text, "document": "line"}, "t")


CHAT_OPTIONS: list[dict[str, Any]] = [
    {"chat_format": "sharegpt"},
    {"columns": {"messages": "chat"}},
    {"roles": {"bot": "assistant"}},
    {"malformed": "drop"},
    {"overlong": "truncate_left"},
    {"packing": "best_fit"},
]


def test_everything_that_matters_changes_it(text: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    chat = {**text, "kind": "chat"}
    found = [
        data_fingerprint(text, "t"),
        data_fingerprint(text, "other tokenizer"),
        data_fingerprint({**text, "limit": 1}, "t"),
        data_fingerprint({**text, "text_column": "body"}, "t"),
        data_fingerprint(chat, "t", 128, {"template": "a", "turns": "all"}),
        data_fingerprint(chat, "t", 256, {"template": "a", "turns": "all"}),
        data_fingerprint(chat, "t", 128, {"template": "b", "turns": "all"}),
        data_fingerprint(chat, "t", 128, {"template": "a", "turns": "last"}),
        *(data_fingerprint({**chat, **option}, "t", 128, {"template": "a", "turns": "all"}) for option in CHAT_OPTIONS),
    ]
    Path(text["path"]).write_text('{"text": "one"}\n{"text": "TWO"}\n')
    found.append(data_fingerprint(text, "t"))
    monkeypatch.setattr(fingerprints, "DATA_VERSION", -1)
    found.append(data_fingerprint(text, "t"))
    assert len(set(found)) == len(found)


def test_seq_len_and_template_mean_nothing_to_text(text: dict[str, Any]) -> None:
    one, other = {"template": "a", "turns": "all"}, {"template": "b", "turns": "last"}
    assert data_fingerprint(text, "t", 128, one) == data_fingerprint(text, "t", 256, other)


def test_what_a_template_is_called_and_how_much_is_proved_change_no_rows(text: dict[str, Any]) -> None:
    chat = {**text, "kind": "chat"}
    first = data_fingerprint(chat, "t", 128, {"template": "a", "turns": "all", "template_name": "chatml"})
    other = {"template": "a", "turns": "all", "template_name": "own.jinja", "proof_rows": 3}
    assert data_fingerprint(chat, "t", 128, other) == first


def test_evaluation_items_depend_on_no_tokenizer() -> None:
    evals = {"kind": "evals", "source": "stdlib_evals"}
    assert data_fingerprint(evals, "a") == data_fingerprint(evals, "b")


def test_parts_of_the_built_in_source_differ() -> None:
    source = {"source": "stdlib"}
    assert data_fingerprint(source) != data_fingerprint({**source, "part": "dev"})


def test_the_hub_is_not_asked() -> None:
    by_name = {"dataset": "owner/name", "config": "c", "revision": "r"}
    assert data_fingerprint(by_name) != data_fingerprint({**by_name, "revision": "s"})


def test_a_local_dataset_folder_counts_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "one"}\n')
    config = {"dataset": str(tmp_path)}
    first = data_fingerprint(config)
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "two"}\n')
    assert data_fingerprint(config) != first


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.path: /nowhere.txt isn't there"):
        data_fingerprint({"path": "/nowhere.txt"})
    with pytest.raises(DataError, match=r"data.dataset: ./nowhere isn't there"):
        data_fingerprint({"dataset": "./nowhere"})
    with pytest.raises(DataError, match="the data has no source"):
        data_fingerprint({"name": "x"})


def test_a_trained_tokenizer_depends_on_text_and_size(text: dict[str, Any]) -> None:
    first = tokenizer_fingerprint({"path": None}, text, 300)
    assert tokenizer_fingerprint({}, {**text, "name": "renamed"}, 300) == first
    assert tokenizer_fingerprint({}, text, 400) != first
    assert tokenizer_fingerprint({}, {**text, "limit": 1}, 300) != first
    with pytest.raises(DataError, match="a vocabulary of 100 is too small"):
        tokenizer_fingerprint({}, text, 100)


def test_a_given_tokenizer_depends_on_its_files(tokenizer_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizer_folder, tmp_path, dirs_exist_ok=True)
    given = {"path": str(tmp_path)}
    first = tokenizer_fingerprint(given, {}, 0)
    assert first == tokenizer_fingerprint({"path": str(tokenizer_folder)}, {}, 0)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert tokenizer_fingerprint(given, {}, 0) != first


def test_digests_of_large_files_are_remembered(
    text: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "_REMEMBERED_SIZE", 1)
    first = data_fingerprint(text, workspace=tmp_path)
    memory = tmp_path / "data" / "digests.json"
    assert len(json.loads(memory.read_text())) == 1
    monkeypatch.setattr(fingerprints, "file_digest", lambda _: pytest.fail("read again"))
    assert data_fingerprint(text, workspace=tmp_path) == first


def test_a_file_that_changed_is_read_again(
    text: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "_REMEMBERED_SIZE", 1)
    first = data_fingerprint(text, workspace=tmp_path)
    path = Path(text["path"])
    path.write_text(path.read_text().upper())
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    assert data_fingerprint(text, workspace=tmp_path) != first
    (tmp_path / "data" / "digests.json").write_text("broken")
    assert data_fingerprint(text, workspace=tmp_path) == data_fingerprint(text)


def test_small_files_write_nothing(text: dict[str, Any], tmp_path: Path) -> None:
    data_fingerprint(text, workspace=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"name": "mine", "path": "a.txt"}, "mine"),
        ({"path": ["texts/corpus.jsonl", "b.txt"]}, "corpus"),
        ({"source": "stdlib"}, "stdlib"),
        ({"dataset": "Salesforce/wikitext"}, "Salesforce-wikitext"),
        ({"name": "../../etc"}, "etc"),
        ({"path": "..."}, "data"),
    ],
)
def test_a_folders_name_comes_from_its_data_and_stays_inside(config: dict[str, Any], name: str) -> None:
    assert data_name(config) == name
    assert prepared_folder("runs", config, "f00") == Path("runs/data") / f"{name}-f00"


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys, titanflow.data.fingerprints; "
        "print({'torch', 'datasets', 'transformers', 'tokenizers', 'numpy', 'prefect', 'pyarrow'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.parametrize("entry", [".", "..", "**/*.txt", "{here}"])
def test_a_folder_with_the_runs_in_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    here = tmp_path / "here"
    (here / "texts").mkdir(parents=True)
    (here / "texts" / "a.txt").write_text("A text.", encoding="utf-8")
    monkeypatch.chdir(here)
    with pytest.raises(DataError, match="holds the folder of the runs"):
        data_fingerprint({"kind": "text", "path": ["texts/a.txt", entry.format(here=here)]}, workspace=Path("runs"))


def test_a_folder_beside_the_runs_or_in_them_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("texts", "runs/made"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "a.txt").write_text("A text.", encoding="utf-8")
    paths = ["texts", "texts/**/*.txt", "*/a.txt", "runs/made", "runs/made/*.txt"]
    found = {data_fingerprint({"kind": "text", "path": path}, workspace=Path("runs")) for path in paths}
    assert len(found) == 1
