"""What a plan makes of what a cluster says of a stage's job, and what it says if none can be asked."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from titanflow.common.errors import told_once
from titanflow.config.keys.launcher import Launcher
from titanflow.planning.cluster.job_checks import job_problems
from titanflow.planning.cluster.job_words import job_words
from titanflow.planning.cluster.refusals import refusal
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import StageRun

ORIGINS = {
    "launcher.kind": "mine.yaml:2",
    "launcher.nnodes": "default",
    "launcher.slurm.partition": "--set launcher.slurm.partition=gpu",
    "launcher.slurm.account": "default",
    "launcher.slurm.mem": "mine.yaml:5",
    "launcher.kubernetes.volumes./shared": "mine.yaml:8",
    "launcher.kubernetes.resources.cpu": "mine.yaml:9",
}


def plans(
    folder: Path, kind: str = "slurm", stages: tuple[str, ...] = ("pretrain", "sft"), **more: Any
) -> list[StagePlan]:
    launcher = asdict(Launcher()) | {"kind": kind} | more
    runs = [
        StageRun(
            stage=stage, experiment="e", run="r", folder=folder / stage, config={"launcher": launcher}, origins=ORIGINS
        )  # type: ignore[arg-type]
        for stage in stages
    ]
    return [StagePlan(run.stage, "RUN", "new", run, ["true"]) for run in runs]


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sets what ``sbatch`` says as it refuses a job; none at all for None."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def says(text: str | None) -> None:
        monkeypatch.setenv("PATH", str(programs) if text is None else f"{programs}:{os.environ['PATH']}")
        if text is not None:
            (programs / "sbatch").write_text(f"#!/bin/sh\necho '{text}' >&2\nexit 1\n")
            (programs / "sbatch").chmod(0o755)

    return says


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "there is no sbatch on this machine"),
        # As 22.05 says where Debian's package is installed, and nothing else.
        (
            "sbatch: fatal: Could not establish a configuration source",
            "the sbatch of this machine knows no cluster (it finds no slurm.conf)",
        ),
    ],
)
def test_a_slurm_that_cannot_be_asked_is_said_once_and_stops_only_a_run(sbatch, tmp_path: Path, said, why) -> None:
    sbatch(said)
    told = f"pretrain, sft: Slurm wasn't asked whether it would take the job: {why}"
    assert job_problems(plans(tmp_path), runs_here=False) == ([], [told])
    problems, warnings = job_problems(plans(tmp_path), runs_here=True)
    assert warnings == []
    assert [(one.message, one.origin) for one in problems] == [(why, "mine.yaml:2")] * 2
    assert "--set launcher='{kind: local, nnodes: 1}'" in problems[0].hint


def test_a_kubernetes_that_cannot_be_asked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    problems, (told,) = job_problems(plans(tmp_path, "kubernetes"), runs_here=False)
    assert problems == []
    assert told.startswith(
        "pretrain, sft: Kubernetes wasn't asked whether it would take the job: there is no kubeconfig"
    )


def test_a_job_that_another_machine_submits_is_asked_about_there(sbatch, tmp_path: Path) -> None:
    sbatch("refused")
    told = "pretrain: Slurm wasn't asked whether it would take the job: a machine of the pool gpu submits it"
    assert job_problems(plans(tmp_path, stages=("pretrain",), pool="gpu"), runs_here=True) == ([], [told])


@pytest.mark.parametrize(
    ("kind", "said", "key", "origin"),
    [
        ("slurm", "sbatch: error: invalid partition specified: gpu", "slurm.partition", "--set launcher.slurm.part"),
        # The account isn't written; the partition may be what it doesn't go with.
        ("slurm", "Invalid account or account/partition combination specified", "slurm.partition", "--set launcher"),
        ("slurm", "Memory specification can not be satisfied", "slurm.mem", "mine.yaml:5"),
        ("slurm", "Requested node configuration is not available", "slurm.mem", "mine.yaml:5"),
        # Nobody wrote a quality of service: the cluster's own default is refused.
        ("slurm", "Invalid qos specification", "", "mine.yaml:2"),
        ("slurm", "something new", "", "mine.yaml:2"),
        ("kubernetes", 'persistentvolumeclaims "x" not found', "kubernetes.volumes", "mine.yaml:8"),
        ("kubernetes", "cpu: must be less than or equal to the limit", "kubernetes.resources", "mine.yaml:9"),
        ("kubernetes", 'namespaces "nowhere" not found', "", "mine.yaml:2"),
    ],
)
def test_a_refusal_points_to_the_key_that_it_is_about(
    tmp_path: Path, kind: str, said: str, key: str, origin: str
) -> None:
    (plan,) = plans(tmp_path, kind, ("pretrain",))
    found = refusal(plan.run, said, said, "")
    assert found.key == f"pretrain.launcher{f'.{key}' if key else ''}"
    assert found.origin.startswith(origin)


def test_a_refusal_that_may_be_about_several_keys_names_all_that_are_written(tmp_path: Path) -> None:
    (plan,) = plans(tmp_path, stages=("pretrain",))
    plan.run.origins = ORIGINS | {"launcher.slurm.extra": "mine.yaml:6"}
    found = refusal(plan.run, "Requested node configuration is not available", "no", "correct it")
    assert (found.key, found.origin) == ("pretrain.launcher.slurm.mem", "mine.yaml:5")
    assert found.hint == "correct it; it may be about launcher.slurm.extra (mine.yaml:6) instead"


def test_a_refusal_of_all_stages_jobs_is_one_mistake(sbatch, tmp_path: Path) -> None:
    sbatch("sbatch: error: invalid partition specified: gpu")
    (one,) = told_once(job_problems(plans(tmp_path), runs_here=False)[0])
    assert str(one).startswith(
        "--set launcher.slurm.partition=gpu: pretrain, sft: launcher.slurm.partition: Slurm wouldn't take the job: "
    )


def test_a_job_in_words() -> None:
    launcher = asdict(Launcher()) | {"kind": "slurm", "nnodes": 2, "nproc_per_node": 8, "device": "cuda"}
    assert job_words(launcher, {}) == "a job of slurm, 2 nodes of 8 processes: gres gpu:8"
    launcher["slurm"] |= {"partition": "gpu", "time": "1:00:00", "mem": "0", "extra": ["--exclusive"]}
    of_user = {"SBATCH_ACCOUNT": "lab", "SBATCH_PARTITION": "other"}
    assert job_words(launcher, of_user).endswith(
        ": partition gpu, account lab (SBATCH_ACCOUNT), time 1:00:00, mem 0, gres gpu:8, --exclusive"
    )
    pods = asdict(Launcher()) | {"kind": "kubernetes"}
    pods["kubernetes"] |= {"image": "i", "resources": {"memory": "8Gi"}, "queue": "lab"}
    assert job_words(pods, {}) == (
        "a job of kubernetes, 1 node of 1 process without GPUs: namespace default, queue lab, image i, memory 8Gi"
    )
