"""The publish stage as a Prefect task: the model card, then a folder or a push to the Hub."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from tasks.hub_token import token_environment
from tasks.stage_task import run_stage
from tasks.ui.labels import task_run_name
from titanflow.plan.stage_plan import StagePlan
from titanflow.run.manifest import Manifest
from titanflow.run.results import StageResult


# The plan decides what is cached, by what is on disk; Prefect only remembers that something ran once.
@task(name="push_to_hub", task_run_name=task_run_name, cache_policy=NO_CACHE, persist_result=False)
def push_to_hub(plan: StagePlan, manifest: Manifest) -> StageResult | State:
    """Publishes the evaluated model, to a folder or to the Hub."""
    return run_stage(plan, manifest, secrets=lambda: token_environment(plan))
