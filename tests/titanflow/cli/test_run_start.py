"""The start of ``titanflow run``: what it does before a plan, and what an interrupt leaves."""

from pathlib import Path

import pytest
from tiny_experiment import write_tiny_experiment
from typer.testing import CliRunner

from tasks.jobs.job import Job
from titanflow.cli.main import app
from titanflow.common.file_lock import held
from titanflow.planning import plan
from titanflow.planning.cluster.resources import job_name

runner = CliRunner()


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    return ["run", "tiny", "--configs", str(write_tiny_experiment(tmp_path / "tiny"))]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "tiny" / "runs" / "tiny"


def interrupts(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("main", ()),
        ("other", ("--run", "other")),
        ("2026-11-30", ("--set", "nightly.date=2026-11-30")),
    ],
)
def test_a_folder_in_use_is_refused_before_a_plan_is_made(
    command: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(plan, "make_plan", interrupts)
    with held(runs / name):
        done = runner.invoke(app, [*command, *options])
        waits = runner.invoke(app, [*command, *options, "--wait"])
    assert done.exit_code == 1
    told = " ".join(done.stderr.split())
    assert f"error: {runs / name} is in use by process " in told
    assert "wait for it (--wait), or give this run another name with --run" in told
    # Who waits plans.
    assert waits.exit_code == 130


def test_an_interrupt_before_the_folder_is_looked_at_names_the_job_of_an_earlier_run(
    command: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "make_plan", interrupts)
    for stage, job in {"pretrain": Job(kind="slurm", name="", id="7", fingerprint="f"), "sft": None}.items():
        folder = runs / "main" / stage
        folder.mkdir(parents=True)
        if job is not None:
            job.model_copy(update={"name": job_name(stage, folder)}).write(folder)
    done = runner.invoke(app, command)
    assert done.exit_code == 130
    name = job_name("pretrain", runs / "main" / "pretrain")
    told, interrupted = done.stderr.splitlines()
    assert told == (
        f"pretrain: a job may still be there, which the next start follows; to end it: scancel --name={name} 7"
    )
    assert interrupted.startswith("interrupted; ")


def test_only_an_interrupted_run_is_said_to_go_on(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "make_plan", interrupts)
    ran, planned = (runner.invoke(app, [name, *command[1:]]) for name in ("run", "plan"))
    assert (ran.exit_code, planned.exit_code) == (130, 130)
    assert ran.stderr == "interrupted; the next start of a run resumes from its newest checkpoint\n"
    assert planned.stderr == "interrupted\n"
