"""Which failures restart a stage, and when."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from titanflow.common.errors import StageLost
from titanflow.config.keys.experiment import Retries

MOST_DELAYS = 50
"""The longest list that Prefect takes; later retries wait as long as its last."""
LONGEST_DELAY = 600.0


def retrying(task: Task[..., Any], retries: Retries) -> Task[..., Any]:
    """The task with retries after failures that another try may mend."""
    delays = [min(LONGEST_DELAY, retries.delay * 2**number) for number in range(min(retries.lost, MOST_DELAYS))]
    return task.with_options(retries=retries.lost, retry_delay_seconds=delays or 0, retry_condition_fn=is_lost)


def is_lost(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether another try may mend the failure (Prefect's ``retry_condition_fn``)."""
    return isinstance(state.data, StageLost)
