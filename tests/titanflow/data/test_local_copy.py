"""Rows on a machine's own disk, whatever happens to the copying processes and to the copy."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from titanflow.common.errors import ConfigError
from titanflow.data import local_copy
from titanflow.data.dataset_info import DatasetInfo
from titanflow.data.local_copy import COPY_FILE, copied, local_place, make_copy
from titanflow.data.mixture import open_rows, write_mixture
from titanflow.data.prepared import TOKENS_FILE, write_rows

SEQ_LEN = 16
COPY = """
import sys
from pathlib import Path
from titanflow.data import local_copy
if sys.argv[3:]:
    write = local_copy._copy
    def stop(source, target):
        target.write_bytes(source.read_bytes()[:100])
        print("in the middle", flush=True)
        sys.stdin.read()
    local_copy._copy = stop
local_copy.make_copy(Path(sys.argv[1]), Path(sys.argv[2]), lambda line: print(line, flush=True))
"""


def rows(folder: Path, name: str = "text", tokens: int = 3000) -> Path:
    folder.mkdir(parents=True)
    info = DatasetInfo(
        kind="text", name=name, fingerprint=f"f-{name}", documents=1, tokens=tokens, trained_tokens=tokens, bytes=0,
        dtype="uint16", vocab_size=300, pad_id=0,
    )  # fmt: skip
    numbers = np.random.default_rng(len(name)).integers(300, size=tokens).astype(np.uint16)
    write_rows(folder, info, [numbers], np.array([tokens]))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return rows(tmp_path / "shared" / "text-1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return local_place(str(tmp_path / "disk"))


def copying(folder: Path, place: Path, *stops: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COPY, str(folder), str(place), *stops]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_copy_holds_the_same_rows_and_is_made_once(folder: Path, place: Path) -> None:
    said: list[str] = []
    assert copied(folder, place) == folder
    assert make_copy(folder, place, said.append)
    copy = copied(folder, place)
    assert copy.parent == place
    shared, local = open_rows(folder, SEQ_LEN), open_rows(copy, SEQ_LEN)
    assert len(shared) == len(local)
    assert all((shared.row(row).labels == local.row(row).labels).all() for row in range(len(shared)))
    written = (copy / COPY_FILE).stat().st_ino
    assert make_copy(folder, place, said.append)
    assert (copy / COPY_FILE).stat().st_ino == written
    assert ["copied to" in said[0], "whose copy is sound" in said[1]] == [True, True]


def flipped(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        (TOKENS_FILE, flipped),
        (TOKENS_FILE, lambda path: os.truncate(path, 10)),
        (TOKENS_FILE, Path.unlink),
        (COPY_FILE, Path.unlink),
        (COPY_FILE, lambda path: path.write_text("{")),
    ],
)
def test_a_damaged_copy_is_made_again(folder: Path, place: Path, file: str, harm: Callable[[Path], object]) -> None:
    make_copy(folder, place, print)
    harm(copied(folder, place) / file)
    assert make_copy(folder, place, print)
    assert (copied(folder, place) / TOKENS_FILE).read_bytes() == (folder / TOKENS_FILE).read_bytes()


def test_other_rows_of_the_same_name_are_another_copy(folder: Path, place: Path) -> None:
    make_copy(folder, place, print)
    before = copied(folder, place)
    shutil.rmtree(folder)
    rows(folder, tokens=4000)
    assert copied(folder, place) == folder
    make_copy(folder, place, print)
    assert copied(folder, place) not in (folder, before)


def test_of_a_mixture_each_source_is_local(tmp_path: Path, folder: Path, place: Path) -> None:
    members = {"text": folder, "more": rows(tmp_path / "shared" / "more-2", "more")}
    mixture = tmp_path / "shared" / "mixture-3"
    mixture.mkdir()
    sources = {name: {"weight": 1.0, "epochs": 1.0} for name in members}
    spec = {"sources": sources, "strategy": "interleave", "weights": "rows", "stop": "first_exhausted"}
    write_mixture(mixture, "mixture", "f", spec, members)
    for _ in range(2):
        assert make_copy(mixture, place, print)
    copy = copied(mixture, place)
    found = json.loads((copy / "dataset.json").read_text())["mixture"]["members"]
    assert {Path(path).parent for path in found.values()} == {place}
    shared, local = open_rows(mixture, SEQ_LEN), open_rows(copy, SEQ_LEN)
    positions = np.arange(200)
    assert (shared.order(3).at(positions) == local.order(3).at(positions)).all()
    assert all((shared.row(row).labels == local.row(row).labels).all() for row in range(len(shared)))


def test_a_full_disk_means_the_shared_rows_and_names_old_copies(
    tmp_path: Path, folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_copy(rows(tmp_path / "shared" / "old-9", "old"), place, print)
    said: list[str] = []
    monkeypatch.setattr(local_copy, "SPARE_BYTES", 1 << 60)
    assert not make_copy(folder, place, said.append)
    assert copied(folder, place) == folder
    assert said[0].startswith(f"WARNING: no room in {place} for text-1")
    assert "yours to delete: old-9-" in said[0]


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local_copy, "_copy", full)
    said: list[str] = []
    assert not make_copy(folder, place, said.append)
    assert "No space left on device" in said[0]
    assert [path for path in place.iterdir() if path.is_dir()] == []


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for named, told in ((f"{tmp_path}/file/below", "can't be made on"), ("$NO_SUCH/rows", "no such variable on")):
        with pytest.raises(ConfigError, match=f"launcher.local_data: .*{told}"):
            local_place(named)
    monkeypatch.setenv("DISK_OF_JOB", str(tmp_path / "job"))
    assert local_place("$DISK_OF_JOB/rows") == tmp_path / "job" / "rows"


@pytest.mark.slow
def test_several_processes_make_one_copy(folder: Path, place: Path) -> None:
    said = [process.communicate(timeout=300)[0] for process in [copying(folder, place) for _ in range(4)]]
    assert sorted("copied to" in text for text in said) == [False, False, False, True]
    assert sum("whose copy is sound" in text for text in said) == 3


@pytest.mark.slow
def test_a_process_killed_in_the_middle_leaves_nothing_that_counts(folder: Path, place: Path) -> None:
    first = copying(folder, place, "stops")
    assert first.stdout is not None
    assert first.stdout.readline() == "in the middle\n"
    second = copying(folder, place)
    assert copied(folder, place) == folder
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=300)
    assert "copied to" in second.communicate(timeout=300)[0]
    assert (copied(folder, place) / TOKENS_FILE).read_bytes() == (folder / TOKENS_FILE).read_bytes()
    # The lock that the first held, and nothing of its half.
    assert [path.name for path in place.iterdir() if path.is_dir()] == [copied(folder, place).name]
