"""Jobs that the controller forgot, told by ``sacct``: stand-ins print what Slurm 22.05.8 with slurmdbd printed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.jobs import slurm
from tasks.jobs.job import Job, JobState
from titanflow.common.errors import NoAnswerError
from titanflow.planning.cluster.resources import Resources

JOB = Job(kind="slurm", name="titanflow-pretrain-1", id="7", fingerprint="f")
GONE = "slurm_load_jobs error: Invalid job id specified"
SILENT = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
DISABLED = "Slurm accounting storage is disabled"
DATABASE = "sacct: error: Problem talking to the database: Connection refused"

Stand = Callable[..., None]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Puts a command on the path that prints something and ends with a status."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def stand(name: str, text: str, status: int = 0) -> None:
        stream = "&2" if status else "&1"
        (programs / name).write_text(f"#!/bin/sh\ncat >{stream} <<'END'\n{text}\nEND\nexit {status}\n")
        (programs / name).chmod(0o755)

    stand("scontrol", GONE, 1)
    return stand


@pytest.mark.parametrize(
    ("line", "reason", "status"),
    [
        ("COMPLETED|0:0", "COMPLETED", 0),
        ("FAILED|3:0", "FAILED", 3),
        ("FAILED|0:9", "FAILED", -9),
        ("CANCELLED by 0|0:0", "CANCELLED", 0),
        ("CANCELLED by 1000|0:15", "CANCELLED", -15),
        ("NODE_FAIL|0:0", "NODE_FAIL", 0),
        ("TIMEOUT|0:0", "TIMEOUT", 0),
        ("OUT_OF_MEMORY|0:125", "OUT_OF_MEMORY", -125),
        # Of a job that was requeued the last counts.
        ("FAILED|1:0\nCOMPLETED|0:0", "COMPLETED", 0),
    ],
)
def test_the_accounting_tells_how_a_job_ended(tmp_path: Path, says: Stand, line: str, reason: str, status: int) -> None:
    says("sacct", "\n".join(f"{JOB.name}|{one}" for one in line.splitlines()))
    assert slurm.state(JOB, tmp_path) == JobState("ended", reason, status=status)


@pytest.mark.parametrize("line", ["RUNNING|0:0", "REQUEUED|0:0", ""])
def test_what_the_accounting_takes_for_living_has_ended_as_its_script_says(
    tmp_path: Path, says: Stand, line: str
) -> None:
    says("sacct", "\n".join(f"{JOB.name}|{one}" for one in line.splitlines()))
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FORGOTTEN")
    (tmp_path / "job-7.status").write_text("143\n")
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FORGOTTEN", status=-15)


def test_without_accounting_the_script_tells(tmp_path: Path, says: Stand) -> None:
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FORGOTTEN")
    says("sacct", DISABLED, 1)
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FORGOTTEN")
    (tmp_path / "job-7.status").write_text("0\n")
    assert slurm.state(JOB, tmp_path) == JobState("ended", "COMPLETED", status=0)


def test_a_database_that_is_down_is_asked_again(tmp_path: Path, says: Stand) -> None:
    says("sacct", DATABASE, 1)
    with pytest.raises(NoAnswerError, match="Problem talking to the database"):
        slurm.state(JOB, tmp_path)
    # Nobody has to wait for what the script has written.
    (tmp_path / "job-7.status").write_text("3\n")
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FORGOTTEN", status=3)


def test_a_status_that_a_full_disk_cut_off_is_none(tmp_path: Path, says: Stand) -> None:
    (tmp_path / "job-7.status").write_text("")
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FORGOTTEN")


def test_a_controller_that_does_not_answer_has_forgotten_nothing(tmp_path: Path, says: Stand) -> None:
    says("scontrol", SILENT, 1)
    says("sacct", f"{JOB.name}|COMPLETED|0:0")
    with pytest.raises(NoAnswerError):
        slurm.state(JOB, tmp_path)


def test_a_job_gets_what_it_is_handed_on(tmp_path: Path, says: Stand) -> None:
    (tmp_path / "bin" / "sbatch").write_text('#!/bin/sh\necho "$SECRET;cluster"\n')
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    settings = {"save_seconds": 120, "extra": [], "setup": []}
    resources = Resources(
        "name", 1, "pretrain", "", tmp_path, tmp_path / "log", 1, 1, 0, None, {}, {"SECRET": "17"}, settings
    )
    assert slurm.submit(["true"], resources) == "17"
