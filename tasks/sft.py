"""The sft stage as a Prefect task: torchtitan under torchrun, from the base's weights."""

from __future__ import annotations

from prefect.states import State

from tasks.stage_task import run_stage, stage_task
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import StageResult


@stage_task(name="sft")
def sft(plan: StagePlan, manifest: Manifest) -> StageResult | State:
    """Fine-tunes the base on conversations, or resumes from its newest complete checkpoint."""
    return run_stage(plan, manifest)
