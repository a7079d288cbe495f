"""The prepare stage as a Prefect task: tokenizer and data, before any GPU is taken."""

from __future__ import annotations

from prefect.states import State

from tasks.stage_task import run_stage, stage_task
from titanflow.common.errors import ConfigError
from titanflow.planning.begin import discard_if_new
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import StageResult


@stage_task(name="prepare")
def prepare(plan: StagePlan, manifest: Manifest) -> StageResult | State:
    """Trains the tokenizer where none is given and prepares every dataset of the experiment."""
    try:
        return run_stage(plan, manifest)
    except ConfigError:
        discard_if_new(plan)
        raise
