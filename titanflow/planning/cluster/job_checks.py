"""What a cluster would get of a stage, and whether it would take it, as far as it can be asked from here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING

from titanflow.common.errors import Problem
from titanflow.files.origins import origin_of
from titanflow.planning.cluster import jobset_dry_run, slurm_script
from titanflow.planning.cluster.kubernetes_api import INSTALL
from titanflow.planning.cluster.refusals import refusal
from titanflow.planning.cluster.resources import DryRun, resources
from titanflow.runs.contract import StageRun

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import StagePlan

KINDS = {"slurm": slurm_script, "kubernetes": jobset_dry_run}
"""A kind of cluster says what it would refuse (``dry_run``), and what a shell submits a job with (``submitted``)."""
NAMES = {"slurm": "Slurm", "kubernetes": "Kubernetes"}
ELSEWHERE = "run this on a machine of the cluster from which jobs are submitted"


def submitted(plan: StagePlan) -> str:
    """What submits a stage's job, pasted into a shell."""
    kind = str(plan.run.config["launcher"]["kind"])
    return KINDS[kind].submitted(plan.command, resources(plan.run, plan.env))


def job_problems(plans: Iterable[StagePlan], runs_here: bool) -> tuple[list[Problem], list[str]]:
    """What the clusters themselves refuse of stages' jobs, by their own dry runs, and warnings.

    A plan may be made on a laptop, for a cluster that only a login node can ask: unless the stages run from here, there
    is only a warning then.
    """
    problems: list[Problem] = []
    warned: dict[str, list[str]] = {}
    for plan in plans:
        kind = str(plan.run.config["launcher"]["kind"])
        found = _dry_run(plan, kind)
        warnings = found.warnings
        if found.unasked and runs_here and not plan.pool:
            key, origin = f"{plan.stage}.launcher.kind", plan.run.origins.get("launcher.kind", "")
            hint = f"{ELSEWHERE}, or all stages as processes of this one: --set launcher='{{kind: local, nnodes: 1}}'"
            problems.append(Problem(found.unasked, key, origin, hint=hint))
        elif found.unasked:
            warnings = [*warnings, f"{NAMES[kind]} wasn't asked whether it would take the job: {found.unasked}"]
        for told in found.refused:
            message = f"{NAMES[kind]} wouldn't take the job: {told}"
            problems.append(refusal(plan.run, told, message, f"correct launcher.{kind}, or {ELSEWHERE}"))
        for told in warnings:
            warned.setdefault(told, []).append(plan.stage)
    return problems, [f"{', '.join(stages)}: {told}" for told, stages in warned.items()]


def _dry_run(plan: StagePlan, kind: str) -> DryRun:
    if plan.pool:
        return DryRun(unasked=f"a machine of the pool {plan.pool} submits it")
    return KINDS[kind].dry_run(plan.command, resources(plan.run, plan.env))


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
    key, origin = f"{run.stage}.launcher.kubernetes.volumes", origin_of(run.origins, "launcher.kubernetes.volumes")
    reads = (run.tokenizer, run.base, run.data.train, run.data.validation)
    for path in dict.fromkeys(path for path in (run.folder, *reads) if path):
        if not any(path.is_relative_to(volume) for volume in mounted):
            what = "the run's folder is" if path == run.folder else "the stage reads"
            hint = "mount the storage that holds it at the same path, or move it onto a volume"
            problems.append(Problem(f"found {', '.join(mounted)}, and {what} {path}", key, origin, hint=hint))
            break
    return problems
