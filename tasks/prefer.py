"""The prefer stage as a Prefect task: torchtitan under torchrun, from the base's weights, on pairs of answers."""

from __future__ import annotations

from prefect.states import State

from tasks.stage_task import run_stage, stage_task
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import StageResult


@stage_task(name="prefer")
def prefer(plan: StagePlan, manifest: Manifest) -> StageResult | State:
    """Trains the base to prefer the chosen answers, or resumes from its newest complete checkpoint."""
    return run_stage(plan, manifest)
