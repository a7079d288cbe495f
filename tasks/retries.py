"""Which failures a stage is started again after, and when."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from titanflow.common.errors import StageLost
from titanflow.config.keys.experiment import Retries

MOST_DELAYS = 50
"""Prefect takes no longer list; further retries wait as long as the last of these."""
LONGEST_DELAY = 600.0


def retrying(task: Task[..., Any], retries: Retries) -> Task[..., Any]:
    """The task, started again after what another try may mend."""
    delays = [min(LONGEST_DELAY, retries.delay * 2**number) for number in range(min(retries.lost, MOST_DELAYS))]
    return task.with_options(retries=retries.lost, retry_delay_seconds=delays or 0, retry_condition_fn=is_lost)


def is_lost(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a task's failure is one that another try may mend (Prefect's ``retry_condition_fn``)."""
    return isinstance(state.data, StageLost)
