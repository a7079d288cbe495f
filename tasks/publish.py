"""The publish stage as a Prefect task: the model card, then a folder or a push to the Hub."""

from __future__ import annotations

from prefect.states import State

from tasks.hub_token import token_environment
from tasks.stage_task import run_stage, stage_task
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import StageResult


@stage_task(name="push_to_hub")
def push_to_hub(plan: StagePlan, manifest: Manifest) -> StageResult | State:
    """Publishes the evaluated model, to a folder or to the Hub."""
    return run_stage(plan, manifest, secrets=lambda: token_environment(plan))
