"""The pretrain stage as a Prefect task: torchtitan under torchrun, from random weights."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from tasks.stage_task import run_stage
from tasks.ui.labels import task_run_name
from titanflow.plan.stage_plan import StagePlan
from titanflow.run.manifest import Manifest
from titanflow.run.results import StageResult


# The plan decides what is cached, by what is on disk; Prefect only remembers that something ran once.
@task(name="pretrain", task_run_name=task_run_name, cache_policy=NO_CACHE, persist_result=False)
def pretrain(plan: StagePlan, manifest: Manifest) -> StageResult | State:
    """Pretrains the model, or resumes from its newest complete checkpoint."""
    return run_stage(plan, manifest)
