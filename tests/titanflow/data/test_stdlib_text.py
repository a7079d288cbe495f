from __future__ import annotations

from pathlib import Path

import pytest

from titanflow.data import stdlib_text
from titanflow.data.stdlib_text import HELD_OUT_MODULES, documents, source_files, stdlib_folder
from titanflow.errors import DataError


def names(part: str) -> set[str]:
    return {file.relative_to(stdlib_folder()).as_posix() for file in source_files(part)}


def test_the_parts_share_nothing_and_hold_what_they_should() -> None:
    train, held_out = names("train"), names("heldout")
    assert not train & held_out
    assert {"json/decoder.py", "asyncio/locks.py", "shutil.py"} <= train
    assert {"textwrap.py", "heapq.py", "statistics.py"} <= held_out
    assert {Path(name).parts[0].removesuffix(".py") for name in held_out} == set(HELD_OUT_MODULES)


def test_tests_and_installed_packages_are_left_out() -> None:
    assert not [name for name in names("train") if {"test", "tests", "site-packages"} & set(Path(name).parts)]


def test_the_held_out_share_is_a_few_percent() -> None:
    sizes = {part: sum(len(text) for text, _ in documents(part)) for part in ("train", "heldout")}
    assert 0.02 < sizes["heldout"] / sizes["train"] < 0.08


def test_no_held_out_module_is_in_the_training_text() -> None:
    train = {text for text, _ in documents("train")}
    assert not [file for text, file in documents("heldout") if text in train]


def test_documents_are_whole_files_in_a_fixed_order() -> None:
    pairs = documents("train", limit=5)
    assert [file for _, file in pairs] == sorted(file for _, file in pairs)
    for text, file in pairs:
        assert text == file.read_text(encoding="utf-8")


def test_an_interpreter_without_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdlib_text, "stdlib_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=r"data.source: .* has no sources in .*"):
        documents()
