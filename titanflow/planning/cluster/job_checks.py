"""What a cluster would get of a stage, and whether it would take it, as far as it can be asked from here."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from titanflow.common.errors import Problem
from titanflow.planning.cluster import jobset_dry_run, slurm_script
from titanflow.planning.cluster.kubernetes_api import INSTALL
from titanflow.planning.cluster.resources import resources
from titanflow.runs.contract import StageRun

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import StagePlan

KINDS = {"slurm": slurm_script, "kubernetes": jobset_dry_run}
"""A kind of cluster says whether it can be asked from here (``can_ask``), what it would refuse (``dry_run``), and what
it is given (``submitted``)."""
NAMES = {"slurm": "Slurm", "kubernetes": "Kubernetes"}


def submitted(plan: StagePlan) -> str:
    """What a stage's job is submitted with: a command and its script, or a manifest."""
    kind = str(plan.run.config["launcher"]["kind"])
    return KINDS[kind].submitted(plan.command, resources(plan.run, plan.env))


def job_problems(plan: StagePlan, runs_here: bool) -> tuple[list[Problem], list[str]]:
    """What the cluster itself refuses of a stage's job, by its own dry run, and warnings."""
    kind = str(plan.run.config["launcher"]["kind"])
    # A plan may be made on a laptop, for a cluster that only a login node can ask.
    if not runs_here and not KINDS[kind].can_ask():
        return [], []
    key, origin = f"{plan.stage}.launcher", plan.run.origins.get("launcher.kind", "")
    found = KINDS[kind].dry_run(plan.command, resources(plan.run, plan.env))
    hint = f"correct launcher.{kind}, or run this on a machine of the cluster from which jobs are submitted"
    refused = [f"{NAMES[kind]} wouldn't take the job: {told}" for told in found.refused]
    return [Problem(told, key, origin, hint=hint) for told in refused], [f"{key}: {told}" for told in found.warnings]


def pod_problems(run: StageRun) -> list[Problem]:
    """What is missing here for a job of Kubernetes: its client, and folders that the pods see."""
    launcher = run.config.get("launcher") or {}
    if launcher.get("kind") != "kubernetes":
        return []
    problems = []
    if importlib.util.find_spec("kubernetes") is None:
        key, origin = f"{run.stage}.launcher.kind", run.origins.get("launcher.kind", "")
        problems.append(Problem("there is no package 'kubernetes'", key, origin, hint=f"install it: {INSTALL}"))
    mounted = launcher["kubernetes"]["volumes"]
    key, origin = f"{run.stage}.launcher.kubernetes.volumes", run.origins.get("launcher.kubernetes.volumes", "")
    reads = (run.tokenizer, run.base, run.data.train, run.data.validation)
    for path in dict.fromkeys(path for path in (run.folder, *reads) if path):
        if not any(path.is_relative_to(volume) for volume in mounted):
            what = "the run's folder is" if path == run.folder else "the stage reads"
            hint = "mount the storage that holds it at the same path, or move it onto a volume"
            problems.append(Problem(f"found {', '.join(mounted)}, and {what} {path}", key, origin, hint=hint))
            break
    return problems
