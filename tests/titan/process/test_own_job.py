import json
import subprocess
import sys
from pathlib import Path

import pytest
from watching import STAYS, wait_for

from titan.process.own_job import end_with_job, is_given_away
from titanflow.runs.contract import INTERRUPTED_EXIT, JOB_FILE
from titanflow.runs.torchrun import JOB

STAGE = f"""
import sys, time
from pathlib import Path
from titan.process.own_job import end_with_job
end_with_job(Path(sys.argv[1]), every=0.01)
print("began", flush=True)
time.sleep({STAYS})
"""


def note(folder: Path, job: str, **more: bool) -> None:
    (folder / JOB_FILE).write_text(json.dumps({"kind": "slurm", "id": job, **more}))


@pytest.mark.parametrize(("noted", "is_another"), [("7", False), ("", False), ("8", True)])
def test_a_folder_is_another_jobs_only_once_that_has_an_id(tmp_path: Path, noted: str, is_another: bool) -> None:
    note(tmp_path, noted)
    assert is_given_away(tmp_path, "7") is is_another


def test_a_folder_whose_job_has_ended_may_be_trained_in_by_a_job_that_was_submitted_by_hand(tmp_path: Path) -> None:
    note(tmp_path, "8", ended=True)
    assert not is_given_away(tmp_path, "9")
    note(tmp_path, "8", ended=False)
    assert is_given_away(tmp_path, "9")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"id": null}'])
def test_what_cannot_be_read_ends_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / JOB_FILE).write_text(text)
    assert not is_given_away(tmp_path, "7")


def test_without_a_job_nothing_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB, raising=False)
    note(tmp_path, "8")
    end_with_job(tmp_path, every=0.0)


def test_a_process_leaves_when_its_folder_gets_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB, "7")
    note(tmp_path, "7")
    process = subprocess.Popen([sys.executable, "-c", STAGE, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    assert process.poll() is None
    note(tmp_path, "8")
    wait_for(lambda: process.poll() is not None, "its end")
    assert process.returncode == INTERRUPTED_EXIT
    assert "job 7 was given up" in process.stdout.read()
