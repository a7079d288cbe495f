from __future__ import annotations

import os
from pathlib import Path

import pytest

from titanflow.common.errors import DataError
from titanflow.data.files.local_files import local_files


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    for name in ("b.txt", "a.md", "deep/c.jsonl", ".hidden/d.txt", "image.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")
    (folder / "empty.py").touch()
    return folder


def names(files: list[Path], folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files]


def test_a_folder_gives_its_known_visible_filled_files_in_order(texts: Path) -> None:
    assert names(local_files(str(texts)).files, texts) == ["a.md", "b.txt", "deep/c.jsonl"]


def test_a_pattern_reaches_below(texts: Path) -> None:
    assert names(local_files(f"{texts}/**/*.jsonl").files, texts) == ["deep/c.jsonl"]


def test_entries_keep_their_order_and_files_count_once(texts: Path) -> None:
    assert names(local_files([f"{texts}/b.txt", str(texts)]).files, texts) == ["b.txt", "a.md", "deep/c.jsonl"]


def test_a_tilde_is_the_home_folder_of_a_user_who_is_there(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(texts.parent))
    assert names(local_files("~/texts/b.txt").files, texts) == ["b.txt"]
    with pytest.raises(DataError, match=r"~nosuchuser/b\.txt isn't there"):
        local_files("~nosuchuser/b.txt")


def test_folders_that_a_pattern_matches_are_counted(texts: Path) -> None:
    found = local_files(f"{texts}/[!i]*")
    assert names(found.files, texts) == ["a.md", "b.txt"]
    assert found.passed_over == {"folder that a pattern matches": 1, "empty": 1}
    assert local_files(f"{texts}/deep/**").passed_over == {}


def test_what_is_neither_a_file_nor_a_folder_is_not_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to("nowhere.txt")
    with pytest.raises(DataError, match=r"pipe\.txt is neither a file nor a folder"):
        local_files(str(tmp_path / "pipe.txt"))
    with pytest.raises(DataError, match=r"link\.txt leads nowhere"):
        local_files(str(tmp_path / "link.txt"))


def test_a_relative_path_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        local_files("missing/corpus.txt")
    message = str(caught.value)
    assert f"data.path: missing/corpus.txt isn't there (looked for it in {tmp_path})" in message
    assert f"its folder {tmp_path / 'missing'} doesn't exist either" in message


def test_all_bad_entries_are_reported_together(texts: Path) -> None:
    entries = [f"{texts}/none.txt", f"{texts}/empty.py", f"{texts}/image.png", f"{texts}/*.parquet", f"{texts}/b.txt"]
    with pytest.raises(DataError) as caught:
        local_files(entries)
    messages = [problem.message for problem in caught.value.problems]
    assert messages == [
        f"{texts}/none.txt isn't there",
        f"{texts}/empty.py is empty",
        f"{texts}/image.png has an ending that isn't known: .png",
        f"the pattern {texts}/*.parquet has no file to read",
    ]


def test_a_folder_of_empty_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    with pytest.raises(DataError, match="nothing but empty files"):
        local_files(str(tmp_path))


def test_a_folder_without_known_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_text("x")
    with pytest.raises(DataError, match=r"has no file to read[\s\S]*\.jsonl"):
        local_files(str(tmp_path))
