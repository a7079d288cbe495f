import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from finished_stage import DATA_FILE, write_checkpoint

from titanflow.runs import checkpoints
from titanflow.runs.checkpoints import (
    complete_folders,
    damage,
    flaw,
    newest_checkpoint,
    read_contents,
    read_pieces,
    step_folders,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("step-9", "step-10", "step-x", "step-1.old"):
        write_checkpoint(tmp_path / name)
    (tmp_path / "step-11").mkdir()
    return tmp_path


def test_steps_are_numbers_and_the_newest_is_first(folder: Path) -> None:
    assert list(step_folders(folder)) == [11, 10, 9]


def test_a_save_that_was_cut_off_is_not_complete(folder: Path) -> None:
    assert list(complete_folders(folder)) == [(10, folder / "step-10"), (9, folder / "step-9")]


def test_no_folder_has_no_steps(tmp_path: Path) -> None:
    assert list(complete_folders(tmp_path / "nowhere")) == []


def test_what_a_checkpoint_holds_is_read_without_torch(folder: Path) -> None:
    contents = read_contents(folder / "step-10")
    assert tuple(contents.shapes) == ("norm.weight", "optimizer.state.norm.weight")
    first, second = read_pieces(folder / "step-10")
    assert (first.file, first.offset, second.offset) == (DATA_FILE, 0, first.length)
    assert contents.files == {DATA_FILE: second.offset + second.length}
    assert (flaw(folder / "step-10"), damage(folder / "step-10")) == ("", "")


def test_only_as_many_are_read_as_are_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hundreds of ranks each metadata has a hundred megabytes."""
    read: list[Path] = []
    monkeypatch.setattr(checkpoints, "flaw", lambda path: read.append(path) or "")
    newest_checkpoint(folder)
    assert read == [folder / "step-11"]


def test_metadata_is_read_once_and_again_when_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, loads = folder / "step-10", []
    load = checkpoints._Plain
    monkeypatch.setattr(checkpoints, "_Plain", lambda file: loads.append(1) or load(file))
    assert flaw(path) == flaw(path) == ""
    assert read_contents(path).shapes
    assert len(loads) == 1
    (path / ".metadata").write_bytes(b"other")
    assert "can't be read" in flaw(path)


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("file", "harm", "expected"),
    [
        (DATA_FILE, shortened, "has 1,0"),
        (DATA_FILE, emptied, "has 0 of 1,0"),
        (DATA_FILE, Path.unlink, f"{DATA_FILE} is missing"),
        (".metadata", shortened, "can't be read"),
        (".metadata", emptied, "can't be read"),
        (".metadata", zeroed, "can't be read"),
        (".metadata", Path.unlink, "its save was interrupted"),
    ],
)
def test_a_flaw_is_named(folder: Path, file: str, harm: Callable[[Path], None], expected: str) -> None:
    harm(folder / "step-10" / file)
    assert expected in flaw(folder / "step-10")
    assert dict(complete_folders(folder)).keys() == {9}


def test_bytes_that_are_not_what_was_written_are_found_whoever_looks(folder: Path) -> None:
    path = folder / "step-10" / DATA_FILE
    whole = path.read_bytes()
    # A power cut leaves the length and zeros.
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert flaw(folder / "step-10") == ""
    assert "is damaged at byte" in damage(folder / "step-10")
    # The second of two pieces is the second process's to look at.
    assert damage(folder / "step-10", part=0, parts=2) == ""
    assert "is damaged at byte" in damage(folder / "step-10", part=1, parts=2)
    flipped = bytearray(whole)
    flipped[200] ^= 1
    path.write_bytes(flipped)
    assert "damaged at byte 0" in damage(folder / "step-10")


def test_nothing_that_the_description_names_is_executed(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1" / ".metadata").write_bytes(pickle.dumps(Malicious()))
    assert "can't be read" in flaw(tmp_path / "step-1")
    assert not (tmp_path / "made").exists()
