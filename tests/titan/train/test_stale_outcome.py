"""What an earlier attempt left goes, and what another rank of this one left stays, whatever machines' clocks say."""

import os
from pathlib import Path

import pytest

from titan.train.train import remove_stale
from titanflow.runs.errors import ERROR_FILE, StageError, record_failure


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch):
    def begin(rank: int, port: int, run_id: str = "17") -> None:
        names = {"TORCHELASTIC_RUN_ID": run_id, "MASTER_ADDR": "node1", "MASTER_PORT": str(port), "RANK": str(rank)}
        for name, value in names.items():
            monkeypatch.setenv(name, value)

    return begin


@pytest.mark.parametrize("written", [0, 2**33])
def test_another_ranks_error_of_this_attempt_stays(tmp_path: Path, start, written: int) -> None:
    start(3, 20001)
    record_failure(tmp_path, ValueError("the cause"), 3)
    # By another machine's clock it may be of the last century, or of the next.
    os.utime(tmp_path / ERROR_FILE, (written, written))
    start(0, 20001)
    remove_stale(tmp_path)
    error = StageError.of(tmp_path)
    assert error is not None
    assert (error.rank, error.message) == (3, "the cause")


@pytest.mark.parametrize("other", [(20002, "17"), (20001, "18")])
def test_an_earlier_attempts_error_goes_and_makes_room(tmp_path: Path, start, other: tuple[int, str]) -> None:
    start(3, 20001)
    record_failure(tmp_path, ValueError("of before"), 3)
    start(5, *other)
    remove_stale(tmp_path)
    record_failure(tmp_path, ValueError("of now"), 5)
    error = StageError.of(tmp_path)
    assert error is not None
    assert error.message == "of now"


@pytest.mark.parametrize("text", ["{", '{"rank": 0}'])
def test_an_error_that_cannot_be_read_goes(tmp_path: Path, start, text: str) -> None:
    start(0, 20001)
    (tmp_path / ERROR_FILE).write_text(text)
    remove_stale(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_the_rank_that_writes_a_result_removes_one(tmp_path: Path, start) -> None:
    (tmp_path / "result.json").touch()
    start(1, 20001)
    remove_stale(tmp_path)
    assert (tmp_path / "result.json").exists()
    start(0, 20001)
    remove_stale(tmp_path)
    assert not (tmp_path / "result.json").exists()
