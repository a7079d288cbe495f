from types import SimpleNamespace

import pytest
from prefect import task

from tasks.retries import LONGEST_DELAY, is_lost, retrying
from titanflow.common.errors import ConfigError, HubError, HubUnreachable, StageFailed, StageLost
from titanflow.config.keys.experiment import Retries


@task(task_run_name="pretrain")
def pretrain():
    pass


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StageLost("killed"), True),
        (HubUnreachable("no answer"), True),
        (HubError("no such repository"), False),
        (StageFailed("the loss is nan"), False),
        (ConfigError("no such key"), False),
        (MemoryError(), False),
    ],
)
def test_only_what_was_lost_is_tried_again(error, again):
    assert is_lost(pretrain, None, SimpleNamespace(data=error)) is again


def test_delays_double_up_to_ten_minutes():
    wanted = retrying(pretrain, Retries(lost=3, delay=10))
    assert (wanted.retries, wanted.retry_delay_seconds, wanted.task_run_name) == (3, [10, 20, 40], "pretrain")
    # Prefect takes no more than fifty delays.
    patient = retrying(pretrain, Retries(lost=80, delay=1)).retry_delay_seconds
    assert (len(patient), patient[-1]) == (50, LONGEST_DELAY)


def test_no_retry_is_possible():
    assert retrying(pretrain, Retries(lost=0)).retries == 0
