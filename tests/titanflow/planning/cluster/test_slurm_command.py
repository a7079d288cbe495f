import os
from dataclasses import asdict
from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError, NoAnswerError, StageFailed
from titanflow.config.keys.launcher import Launcher
from titanflow.planning.cluster.resources import DryRun, resources
from titanflow.planning.cluster.slurm_command import ask
from titanflow.planning.cluster.slurm_script import dry_run
from titanflow.runs.contract import StageRun

# As Slurm 22.05.8 printed them with its controller, or its accounting's database, switched off.
SILENT = [
    "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "allocation failure: Unable to contact slurm controller (connect failure)",
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "sacct: error: Problem talking to the database: Connection refused",
    # From slurm_errno.c: munge's daemon restarts, and a controller takes no job for now.
    "sbatch: error: Batch job submission failed: Protocol authentication error",
    "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
]
REFUSAL = "allocation failure: Requested node configuration is not available"


def sh(text: str, status: int = 1) -> list[str]:
    return ["sh", "-c", f"echo '{text}' >&2; exit {status}"]


@pytest.mark.parametrize("said", SILENT)
def test_a_slurm_that_is_away_is_no_refusal(said: str) -> None:
    with pytest.raises(NoAnswerError, match="sh: "):
        ask(sh(said))


def test_a_refusal_is_told_as_it_is() -> None:
    with pytest.raises(StageFailed, match="configuration is not available") as error:
        ask(sh(REFUSAL))
    assert not isinstance(error.value, NoAnswerError)


def test_a_command_that_is_not_there_names_the_machine() -> None:
    with pytest.raises(ConfigError, match="there is no no-such-slurm"):
        ask(["no-such-slurm"])


def test_a_command_that_waits_is_given_up() -> None:
    with pytest.raises(NoAnswerError, match=r"gave no answer in 0.01 s"):
        ask(["sleep", "60"], seconds=0.01)


def test_a_command_gets_none_of_the_job_in_which_the_flow_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "lab", "SLURM_CLUSTERS": "a", "HF_HOME": "/shared/hf"}
    # With these the stage's job has another memory than it asked for, is several jobs, or isn't found by its name.
    gone = (
        "SLURM_MEM_PER_CPU",
        "SLURM_JOB_ID",
        "SLURM_CLUSTER_NAME",
        "SBATCH_ARRAY_INX",
        "SBATCH_CLUSTERS",
        "SBATCH_WAIT",
    )
    gone += ("SBATCH_ERROR", "SQUEUE_PARTITION", "SQUEUE_STATES", "SACCT_FORMAT", "SCANCEL_STATE")
    for name, value in (kept | dict.fromkeys(gone, "1")).items():
        monkeypatch.setenv(name, value)
    found = dict(line.partition("=")[::2] for line in ask(["env"], more={"TOKEN": "t"}).splitlines())
    assert found.items() >= (kept | {"TOKEN": "t"}).items()
    assert not found.keys() & set(gone)


def test_an_answer_of_any_bytes_is_read() -> None:
    assert ask(["printf", r"caf\351 7"]) == "caf\N{REPLACEMENT CHARACTER} 7"


@pytest.mark.parametrize("said", SILENT)
def test_a_plan_goes_on_without_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    assert planned(tmp_path, monkeypatch, said) == DryRun(warnings=[f"Slurm couldn't be asked: sbatch: {said}"])


def test_a_plan_tells_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(tmp_path, monkeypatch, REFUSAL) == DryRun(refused=[REFUSAL])
    # What the job's own words may hold is no sign of a Slurm that is away.
    odd = "allocation failure: Invalid account: contact your administrator"
    assert planned(tmp_path, monkeypatch, odd) == DryRun(refused=[odd])


def test_a_plan_names_the_variables_that_a_job_would_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "1")
    found = planned(tmp_path, monkeypatch, "", 0, export=["MINE", "THEIRS"])
    assert found == DryRun(warnings=["slurm.export: THEIRS isn't set in this environment"])


def planned(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int = 1, **asked: list[str]) -> DryRun:
    """What a plan makes of an ``sbatch`` that ends with these words."""
    (folder / "sbatch").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit {status}\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    launcher = asdict(Launcher()) | {"kind": "slurm"}
    launcher["slurm"] |= asked
    run = StageRun(stage="pretrain", experiment="e", run="r", folder=folder, config={"launcher": launcher})
    return dry_run(["true"], resources(run, {}))
