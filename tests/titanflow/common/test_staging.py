from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from titanflow.common.errors import StageFailed
from titanflow.common.staging import discard_staged, full_disk_told, no_room, scratch_folder, staged_folder

MARK = "dataset.json"


def make(folder: Path, text: str = "{}") -> None:
    with staged_folder(folder, MARK) as staged:
        (staged / "tokens.npy").write_bytes(b"whole")
        (staged / MARK).write_text(text)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_there_when_it_is_whole(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "text", MARK) as staged:
        (staged / MARK).write_text("{}")
        assert not (tmp_path / "text").exists()
    assert entries(tmp_path) == ["text"]
    assert entries(tmp_path / "text") == [MARK]
    assert (tmp_path / "text").stat().st_mode & 0o777 == 0o755


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_folder(tmp_path / "data" / "text", MARK) as staged:
            (staged / "tokens.npy").write_bytes(b"half")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        fail()
    assert entries(tmp_path / "data") == []


def test_the_first_of_two_writers_stays(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    with staged_folder(folder, MARK) as mine:
        make(folder, "first")
        (mine / MARK).write_text("second")
    assert (folder / MARK).read_text() == "first"
    assert entries(tmp_path) == ["text"]


def test_an_incomplete_folder_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "tokens.npy").write_bytes(b"half")
    make(folder)
    assert (folder / "tokens.npy").read_bytes() == b"whole"


def test_leftovers_of_dead_processes_are_swept_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    prefix = f".text.{socket.gethostname()}."
    leftovers = {name: tmp_path / f"{prefix}{name}" for name in (f"{dead}-x", f"{os.getppid()}-x")}
    leftovers["elsewhere"] = tmp_path / f".text.another-machine.{dead}-x"
    for leftover in leftovers.values():
        leftover.mkdir()
    make(tmp_path / "text")
    assert {name for name, leftover in leftovers.items() if leftover.exists()} == {f"{os.getppid()}-x", "elsewhere"}


def test_a_process_that_must_end_at_once_leaves_nothing(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as scratch, staged_folder(tmp_path / "text", MARK) as staged:
        (scratch / "encoded.arrow").write_bytes(b"half")
        (staged / MARK).write_text("{}")
        discard_staged()
        assert entries(tmp_path) == []
        staged.mkdir()
        scratch.mkdir()


def test_a_scratch_folder_is_gone_however_the_block_ends(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch_folder(tmp_path):
            assert len(entries(tmp_path)) == 1
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert entries(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_behind_other_errors(code: int) -> None:
    full = OSError(code, os.strerror(code))
    wrapped = RuntimeError("generating failed")
    wrapped.__cause__ = full
    assert no_room(full) == no_room(wrapped) == str(full)
    # What is written in Rust raises a plain exception.
    assert "os error" in no_room(Exception(f"write failed (os error {code})"))


def test_other_errors_are_no_full_disk() -> None:
    assert no_room(OSError(errno.EACCES, "no")) == ""
    assert no_room(ValueError("no")) == ""
    assert no_room(None) == ""


def test_a_full_disk_is_told_in_a_sentence() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        with (
            pytest.raises(StageFailed, match=r"^the disk is full \(.*No space left on device\): make room"),
            full_disk_told(),
        ):
            print("more than fits", file=full, flush=True)
        with pytest.raises(OSError, match="No space left"):
            full.close()
    with pytest.raises(FileNotFoundError), full_disk_told():
        raise FileNotFoundError(errno.ENOENT, "no such file")
