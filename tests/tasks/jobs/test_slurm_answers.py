"""What Slurm's commands answer, by stand-ins of theirs."""

from pathlib import Path

import pytest

from tasks.jobs import slurm
from tasks.jobs.job import Job, JobState
from titanflow.common.errors import NoAnswerError, StageFailed
from titanflow.planning.cluster.resources import Resources

JOB = Job(kind="slurm", name="titanflow-pretrain-1", id="7", fingerprint="f")
OWN = f"JobId=7 JobName={JOB.name}"
GREETING = "*** Maintenance on Monday 2026-12-07 ***\nJobs of more than 12\nhours wait."


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sets what a command prints."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def stand(name: str, text: str | bytes, status: int = 0) -> None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())
        (programs / name).write_text(f"#!/bin/sh\n/bin/cat {tmp_path / name}\nexit {status}\n")
        (programs / name).chmod(0o755)

    return stand


def submitted(folder: Path) -> str:
    settings = {"save_seconds": 120, "extra": [], "setup": []}
    resources = Resources(
        JOB.name, 1, "pretrain", "", folder, folder / "log", 1, 1, 0, None, {}, {"SECRET": "17"}, settings
    )
    return slurm.submit(["true"], resources)


@pytest.mark.parametrize(
    ("exit_code", "status"),
    [("0:0", 0), ("1:0", 1), ("137:0", -9), ("143:0", -15), ("0:9", -9), ("0:53", -53), ("128:0", 128)],
)
def test_a_status_that_stands_for_a_signal_is_that_signal(says, tmp_path: Path, exit_code, status) -> None:
    says("scontrol", f"{OWN} JobState=FAILED Reason=NonZeroExitCode ExitCode={exit_code} StartTime=2026-11-29T23:31:54")
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FAILED", status=status)


@pytest.mark.parametrize(
    ("limit", "seconds"), [("00:05:00", 300), ("1-02:00:00", 93600), ("UNLIMITED", None), ("Partition_Limit", None)]
)
def test_how_long_a_job_ran_of_its_limit(says, tmp_path: Path, limit: str, seconds: int | None) -> None:
    says("scontrol", f"{OWN} JobState=FAILED ExitCode=1:0 RunTime=00:02:01 TimeLimit={limit} TimeMin=N/A")
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FAILED", status=1, ran=121, limit=seconds)


@pytest.mark.parametrize(
    ("written", "status"), [("0", 0), ("1", 1), ("137", -9), ("", None), ("1\x00", None), ("No space", None)]
)
def test_a_forgotten_job_ended_as_its_script_wrote(says, tmp_path: Path, written: str, status) -> None:
    says("scontrol", "slurm_load_jobs error: Invalid job id specified", 1)
    (tmp_path / "job-7.status").write_text(written)
    reason = "COMPLETED" if status == 0 else "FORGOTTEN"
    assert slurm.state(JOB, tmp_path) == JobState("ended", reason, status=status)


@pytest.mark.parametrize(
    "answer",
    [
        "17",
        "17;cluster",
        f"{GREETING}\n17",
        f"{GREETING}\n17;cluster\nGood luck!",
        "Submitted batch job 17",
        b"\xff\n17",
    ],
)
def test_an_id_is_found_among_a_cluster_s_own_words(says, tmp_path: Path, answer: str | bytes) -> None:
    says("sbatch", answer)
    assert submitted(tmp_path) == "17"


@pytest.mark.parametrize("answer", ["", GREETING, "slurm-wlm 22.05.8"])
def test_an_answer_without_an_id_is_no_job(says, tmp_path: Path, answer: str) -> None:
    says("sbatch", answer)
    with pytest.raises(StageFailed, match="found no job id"):
        submitted(tmp_path)


@pytest.mark.parametrize(("answer", "found"), [("", ""), ("9\n10", "10"), ("CLUSTER: a\n9", "9"), ("CLUSTER: a", "")])
def test_the_newest_job_of_a_name_is_found(says, answer: str, found: str) -> None:
    says("squeue", answer)
    assert slurm.find(JOB.name) == found


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("", 0),
        (GREETING, 0),
        (f"{OWN} JobState=EXPLODED ExitCode=0:0", 0),
        (f"{OWN} JobState= ExitCode=0:0", 0),
        ("slurm_load_jobs error: Protocol authentication error", 1),
        ("", -9),
    ],
)
def test_an_answer_that_tells_nothing_ends_no_job(says, tmp_path: Path, answer: str, status: int) -> None:
    says("scontrol", answer, abs(status))
    with pytest.raises(NoAnswerError, match="scontrol"):
        slurm.state(JOB, tmp_path)


@pytest.mark.parametrize("name", ["titanflow-pretrain-2", "somebody-elses"])
def test_an_id_that_is_another_job_s_now_is_a_job_that_was_forgotten(says, tmp_path: Path, name: str) -> None:
    says("scontrol", f"JobId=7 JobName={name} UserId=me(1) JobState=RUNNING ExitCode=0:0")
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FORGOTTEN")
    says("sacct", f"{name}|COMPLETED|0:0")
    assert slurm.state(JOB, tmp_path) == JobState("ended", "FORGOTTEN")


@pytest.mark.parametrize("word", slurm.WAITING)
def test_a_job_that_was_put_back_waits(says, tmp_path: Path, word: str) -> None:
    says("scontrol", f"{OWN} JobState={word} Reason=launch_failed ExitCode=0:0 StartTime=Unknown")
    assert slurm.state(JOB, tmp_path) == JobState("waiting", "launch_failed")


@pytest.mark.parametrize("word", slurm.RUNNING)
def test_a_job_that_stands_still_or_cleans_up_still_runs(says, tmp_path: Path, word: str) -> None:
    says("scontrol", f"{OWN} JobState={word} Reason=None ExitCode=0:0")
    assert slurm.state(JOB, tmp_path) == JobState("running")


def test_words_of_a_user_are_no_state(says, tmp_path: Path) -> None:
    path = b"/shared/a JobState=FAILED ExitCode=1:0 JobName=x/\xfc"
    says("scontrol", f"{OWN} JobState=RUNNING Reason=None ExitCode=0:0 WorkDir=".encode() + path + b"\n")
    assert slurm.state(JOB, tmp_path) == JobState("running")


def test_of_a_federation_the_cluster_that_runs_a_job_tells_of_it(says, tmp_path: Path) -> None:
    says("scontrol", f"{OWN} JobState=REVOKED ExitCode=0:0\n{OWN} JobState=RUNNING ExitCode=0:0")
    assert slurm.state(JOB, tmp_path) == JobState("running")
