"""A stop of a flow ends its stage's job, or says that the job may still be there; by a stand-in of Slurm."""

import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tasks.jobs import follow
from tasks.jobs.follow import jobs_end_with, left_job, run_job
from tasks.jobs.job import Job, unended
from titanflow.common.errors import NoAnswerError, StageFailed
from titanflow.config.keys.launcher import Launcher
from titanflow.planning.cluster.resources import job_name
from titanflow.planning.cluster.slurm_command import ask
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import StageRun

COMMANDS = {
    "sbatch": "echo PENDING > {state}; echo 7",
    "squeue": "[ ! -e {state} ] || echo 7",
    "scontrol": "echo JobId=7 JobName={name} JobState=$(cat {state}) ExitCode=0:0",
    "scancel": 'echo "$@" >> {folder}/cancelled; echo CANCELLED > {state}',
}
AWAY = "echo squeue: error: Unable to contact slurm controller >&2; exit 1"


class Slurm:
    """Its commands, and a stage of which it may have job 7."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.state, self.stage = folder / "bin", folder / "state", folder / "run" / "pretrain"
        self.name = job_name("pretrain", self.stage)
        launcher = {**asdict(Launcher()), "kind": "slurm"}
        common = {"stage": "pretrain", "experiment": "tiny", "run": "main", "folder": self.stage}
        self.run = StageRun(**common, fingerprint="f", config={"launcher": launcher})
        self.plan = StagePlan("pretrain", "RUN", "new", self.run, ["train"])
        self.bin.mkdir()
        self.stage.mkdir(parents=True)
        for name, then in COMMANDS.items():
            self.does(name, then.format(state=self.state, folder=self.bin, name=self.name))

    def does(self, name: str, then: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{then}\n")
        (self.bin / name).chmod(0o755)

    def notes(self, id: str = "7", fingerprint: str = "f") -> None:
        """A flow submitted job 7, and noted that, or was killed before it had the id."""
        self.state.write_text("RUNNING\n")
        Job(kind="slurm", name=self.name, id=id, fingerprint=fingerprint).write(self.stage)

    def cancelled(self) -> list[str]:
        path = self.bin / "cancelled"
        return path.read_text().splitlines() if path.exists() else []

    def job(self) -> Job:
        job = Job.of(self.stage)
        assert job is not None
        return job


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    slurm = Slurm(tmp_path)
    monkeypatch.setenv("PATH", f"{slurm.bin}:/usr/bin:/bin")
    monkeypatch.setattr(follow, "ENDING_SECONDS", 0.0)
    return slurm


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_stop_between_the_submission_and_the_first_look_ends_the_job_and_notes_that(slurm: Slurm) -> None:
    def say(line: str) -> None:
        if line == "job 7 of slurm":
            stop()

    with pytest.raises(KeyboardInterrupt):
        run_job(slurm.plan, {}, None, print, say)
    assert slurm.cancelled() == [f"--name={slurm.name} 7"]
    assert slurm.job().ended
    assert unended(slurm.stage.parent) == {}


def test_a_terminal_s_interrupt_does_not_reach_slurm_s_commands() -> None:
    own = int(ask([sys.executable, "-c", "import os; print(os.getsid(0))"]))
    assert own != os.getsid(0)


@pytest.mark.parametrize("id", ["7", ""], ids=["its id is noted", "its id isn't noted"])
def test_a_stop_ends_the_job_of_an_earlier_flow_that_was_not_looked_for_yet(slurm: Slurm, id: str) -> None:
    slurm.notes(id)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), jobs_end_with([slurm.run], said.append):
        stop()
    assert said == ["pretrain: job 7 is still there: it saves and ends"]
    assert slurm.cancelled() == [f"--signal=TERM --name={slurm.name} 7"]
    assert (slurm.job().id, slurm.job().ended) == ("7", True)


def test_a_stop_while_nobody_knows_whether_the_job_was_taken_ends_it(slurm: Slurm) -> None:
    slurm.does("sbatch", f"echo PENDING > {slurm.state}; echo sbatch: error: Socket timed out >&2; exit 1")
    slurm.does("squeue", "true")
    with pytest.raises(NoAnswerError):
        run_job(slurm.plan, {}, None, print, print)
    slurm.does("squeue", "echo 7")
    # While it waits to ask again.
    with pytest.raises(KeyboardInterrupt), jobs_end_with([slurm.run], print):
        stop()
    assert slurm.cancelled() == [f"--name={slurm.name} 7"]
    assert slurm.job().ended


def test_a_job_that_may_be_there_while_slurm_is_away_is_told(slurm: Slurm) -> None:
    slurm.notes("")
    slurm.does("squeue", AWAY)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), jobs_end_with([slurm.run], said.append):
        stop()
    (line,) = said
    assert "its job may still be there (squeue: squeue: error: Unable to contact slurm" in line
    assert "the next run of the folder looks for it" in line
    (left,) = unended(slurm.stage.parent).values()
    assert left.to_end == f"scancel --name={slurm.name}"


def test_a_job_that_does_not_end_makes_no_failure_of_a_stop(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a StageLost the stage would be started again."""
    monkeypatch.setattr(follow, "END_SECONDS", 0.0)
    slurm.does("scancel", "true")
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line == "job 7 of slurm":
            stop()

    with pytest.raises(KeyboardInterrupt):
        run_job(slurm.plan, {}, None, print, say)
    assert "may still be there (job 7 doesn't end" in said[-1]
    assert list(unended(slurm.stage.parent)) == ["pretrain"]


def test_a_failure_elsewhere_ends_no_job(slurm: Slurm) -> None:
    slurm.notes()
    with pytest.raises(StageFailed), jobs_end_with([slurm.run], print):
        raise StageFailed("of another stage")
    assert slurm.cancelled() == []
    assert not slurm.job().ended


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED"])
def test_the_end_of_a_job_that_made_something_else_is_noted(slurm: Slurm, state: str) -> None:
    slurm.notes(fingerprint="other")
    slurm.state.write_text(f"{state}\n")
    assert left_job(slurm.run, print) is None
    assert slurm.job().ended
    assert len(slurm.cancelled()) == (state == "RUNNING")


def test_the_job_of_a_folder_that_was_copied_is_left_alone(slurm: Slurm) -> None:
    slurm.state.write_text("RUNNING\n")
    Job(kind="slurm", name=job_name("pretrain", slurm.stage / "original"), id="7", fingerprint="f").write(slurm.stage)
    with pytest.raises(KeyboardInterrupt), jobs_end_with([slurm.run], print):
        stop()
    assert slurm.cancelled() == []
    assert unended(slurm.stage.parent) == {}


def test_a_job_of_kubernetes_is_ended_by_hand_in_its_namespace() -> None:
    job = Job(kind="kubernetes", name="titanflow-sft-1.lab", fingerprint="f")
    assert job.to_end == "kubectl delete jobset titanflow-sft-1 --namespace=lab"
