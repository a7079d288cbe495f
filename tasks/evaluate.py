"""The evaluate stage as a Prefect task: lm-evaluation-harness on the exported models, side by side."""

from __future__ import annotations

from prefect.states import State

from tasks.stage_task import run_stage, stage_task
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import StageResult


@stage_task(name="evaluate")
def evaluate(plan: StagePlan, manifest: Manifest) -> StageResult | State:
    """Scores the named models on the same tasks."""
    return run_stage(plan, manifest)
