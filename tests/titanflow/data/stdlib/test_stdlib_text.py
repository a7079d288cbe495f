from __future__ import annotations

from pathlib import Path

import pytest

from titanflow.common.errors import DataError
from titanflow.data.stdlib import text as stdlib_text
from titanflow.data.stdlib.text import HELD_OUT_MODULES, documents, held_out_part, source_files, stdlib_folder


def names(part: str) -> set[str]:
    return {file.relative_to(stdlib_folder()).as_posix() for file in source_files(part)}


def test_the_parts_share_nothing_and_hold_what_they_should() -> None:
    train, dev, test = names("train"), names("dev"), names("test")
    held_out = dev | test
    assert not train & held_out
    assert not dev & test
    assert {"json/decoder.py", "asyncio/locks.py", "shutil.py"} <= train
    assert {"textwrap.py", "heapq.py", "csv.py"} <= test
    assert {"statistics.py", "shlex.py"} <= dev
    assert {Path(name).parts[0].removesuffix(".py") for name in held_out} == set(HELD_OUT_MODULES)


def test_tests_and_installed_packages_are_left_out() -> None:
    assert not [name for name in names("train") if {"test", "tests", "site-packages"} & set(Path(name).parts)]


def test_the_held_out_share_is_a_few_percent() -> None:
    sizes = {part: sum(len(text) for text, _ in documents(part)) for part in ("train", "dev", "test")}
    assert all(0.01 < sizes[part] / sizes["train"] < 0.04 for part in ("dev", "test"))


def test_no_held_out_module_is_in_the_training_text() -> None:
    train = {text for text, _ in documents("train")}
    assert not [file for part in ("dev", "test") for text, file in documents(part) if text in train]


def test_a_module_is_in_a_part_by_its_name_alone() -> None:
    parts = {"statistics": "dev", "json": "dev", "textwrap": "test", "asyncio": "test"}
    assert {name: held_out_part(name) for name in parts} == parts


def test_documents_are_whole_files_in_a_fixed_order() -> None:
    pairs = documents("train", limit=5)
    assert [file for _, file in pairs] == sorted(file for _, file in pairs)
    for text, file in pairs:
        assert text == file.read_text(encoding="utf-8")


def test_an_interpreter_without_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdlib_text, "stdlib_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=r"data.source: .* has no sources in .*"):
        documents()
