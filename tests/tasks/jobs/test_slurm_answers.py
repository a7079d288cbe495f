"""What Slurm's commands answer, by stand-ins of theirs."""

from pathlib import Path

import pytest

from tasks.jobs import slurm
from tasks.jobs.job import JobState


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sets what ``scontrol`` prints."""

    def says(text: str, status: int = 0) -> None:
        program = tmp_path / "bin" / "scontrol"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        monkeypatch.setattr(slurm.shutil, "which", lambda name: None)

    return says


@pytest.mark.parametrize(
    ("exit_code", "status"),
    [("0:0", 0), ("1:0", 1), ("137:0", -9), ("143:0", -15), ("0:9", -9), ("0:53", -53), ("128:0", 128)],
)
def test_a_status_that_stands_for_a_signal_is_that_signal(scontrol, tmp_path: Path, exit_code, status) -> None:
    scontrol(f"JobId=7 JobState=FAILED Reason=NonZeroExitCode ExitCode={exit_code} StartTime=2026-11-29T23:31:54")
    assert slurm.state("7", tmp_path) == JobState("ended", "FAILED", status=status)


@pytest.mark.parametrize(("written", "status"), [("0", 0), ("1", 1), ("137", -9), ("", None)])
def test_a_forgotten_job_ended_as_its_script_wrote(scontrol, tmp_path: Path, written: str, status) -> None:
    scontrol("slurm_load_jobs error: Invalid job id specified", 1)
    (tmp_path / "job-7.status").write_text(written)
    reason = "COMPLETED" if status == 0 else "FORGOTTEN"
    assert slurm.state("7", tmp_path) == JobState("ended", reason, status=status)
