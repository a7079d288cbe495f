"""Where a run is, by the files that its stages write."""

from pathlib import Path

import pytest

from flows.resume_proof.kill_points import ORDER, Position
from flows.resume_proof.run_watch import RunWatch
from titanflow.runs.contract import KINDS

LAUNCH = "$ python -m titan.evaluate.evaluate run.yaml\n"
EVALUATE = Position(KINDS.index("evaluate"), ORDER["work"])
BEFORE_ALL = Position(-1, 0)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of an evaluation that was launched and killed."""
    path = tmp_path / "evaluate" / "evaluate.log"
    path.parent.mkdir()
    path.write_text(LAUNCH)
    return path


@pytest.mark.parametrize("more", ["", "a line that the earlier one lacks\n"])
def test_a_stage_that_begins_anew_is_seen_though_its_log_is_as_long(tmp_path: Path, log: Path, more: str) -> None:
    watch = RunWatch(tmp_path, KINDS, {})
    assert watch.position() == BEFORE_ALL
    log.parent.rename(tmp_path / "evaluate-1")
    log.parent.mkdir()
    log.write_text(LAUNCH + more)
    assert watch.position() == EVALUATE


def test_a_stage_that_goes_on_is_seen_by_what_its_log_gets(tmp_path: Path, log: Path) -> None:
    watch = RunWatch(tmp_path, KINDS, {})
    with log.open("a") as appended:
        appended.write("saved\n$ python -m titan")
        appended.flush()
        assert watch.position() == BEFORE_ALL
        appended.write(".evaluate run.yaml\n")
    assert watch.position() == EVALUATE
    watch.begin()
    assert watch.position() == BEFORE_ALL
