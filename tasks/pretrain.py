"""The pretrain stage as a Prefect task: torchtitan under torchrun, from random weights."""

from __future__ import annotations

from prefect.states import State

from tasks.stage_task import run_stage, stage_task
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import StageResult


@stage_task(name="pretrain")
def pretrain(plan: StagePlan, manifest: Manifest) -> StageResult | State:
    """Pretrains the model, or resumes from its newest complete checkpoint."""
    return run_stage(plan, manifest)
