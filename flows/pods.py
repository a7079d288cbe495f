"""A stage in a work pool of Kubernetes: what its pod is asked for."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import WorkPool

from titanflow.planning.stage_plan import StagePlan

TYPE = "kubernetes"
GPUS = "gpu"
"""The variable of the pool's template with the number of a pod's GPUs."""


def pod_variables(plan: StagePlan, pool: WorkPool) -> dict[str, Any]:
    """The job variables of a stage: as many GPUs as it has processes, none on a CPU.

    ``launcher.device: auto`` takes what the pool gives, and so does a pool of another type.
    """
    launcher = plan.run.config["launcher"]
    device = launcher.get("device", "auto")
    if pool.type != TYPE or device == "auto" or (device == "cpu" and GPUS not in _known(pool)):
        return {}
    return {GPUS: launcher["nproc_per_node"] if device == "cuda" else 0}


def why_no_pod(plan: StagePlan, pool: WorkPool) -> str:
    """Why the stage can be no pod of its pool; empty if it can, or if the pool has none."""
    if pool.type != TYPE:
        return ""
    launcher = plan.run.config["launcher"]
    if (nodes := launcher.get("nnodes", 1)) > 1:
        return f"its stages have one pod each, and launcher.nnodes is {nodes}"
    if launcher.get("device") == "cuda" and GPUS not in _known(pool):
        return f"its template has no variable {GPUS!r}, by which a stage with launcher.device: cuda asks for GPUs"
    return ""


def _known(pool: WorkPool) -> Any:
    return pool.base_job_template.get("variables", {}).get("properties", {})
