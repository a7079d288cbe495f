import os
from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError, NoAnswerError, StageFailed
from titanflow.plan.cluster.resources import DryRun, Resources
from titanflow.plan.cluster.slurm_command import ask
from titanflow.plan.cluster.slurm_script import dry_run

# As Slurm 22.05.8 printed them with its controller, or its accounting's database, switched off.
SILENT = [
    "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "allocation failure: Unable to contact slurm controller (connect failure)",
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "sacct: error: Problem talking to the database: Connection refused",
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


@pytest.mark.parametrize("said", SILENT)
def test_a_plan_goes_on_without_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    assert planned(tmp_path, monkeypatch, said) == DryRun(warnings=[f"Slurm couldn't be asked: sbatch: {said}"])


def test_a_plan_tells_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(tmp_path, monkeypatch, REFUSAL) == DryRun(refused=[REFUSAL])
    # What the job's own words may hold is no sign of a Slurm that is away.
    odd = "allocation failure: Invalid account: contact your administrator"
    assert planned(tmp_path, monkeypatch, odd) == DryRun(refused=[odd])


def planned(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> DryRun:
    """What a plan makes of an ``sbatch`` that fails with these words."""
    (folder / "sbatch").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    settings = {"save_seconds": 120, "extra": [], "setup": []}
    resources = Resources("name", 1, "pretrain", "", folder, folder / "log", 1, 1, 0, None, {}, {}, settings)
    return dry_run(["true"], resources)
