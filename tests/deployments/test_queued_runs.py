"""Runs that are due while all workers are busy."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect.client.schemas.schedules import CronSchedule
from prefect.states import Running, Scheduled
from stand_in_server import StandInServer

from deployments.flow_runs.queued_runs import tell_queued
from deployments.work_pool import POOL

BUSY = {"experiment": "tiny", "run": "night-{date}", "pretrain_steps": 3}


@pytest.fixture
def server():
    return StandInServer()


def waiting(server, state="Scheduled", seconds=6, pool=POOL, **more):
    """A run that was due some seconds ago."""
    due = datetime.now(UTC) - timedelta(seconds=seconds)
    return server.add(Scheduled(name=state, scheduled_time=due), {}, pool=pool, **{"parameters": BUSY, **more})


def test_a_run_that_waits_for_a_worker_has_its_name_and_says_so_once(server):
    zone = SimpleNamespace(id=uuid4(), schedule=CronSchedule(cron="0 2 * * *", timezone="Pacific/Auckland"))
    server.read_deployment = lambda deployment: SimpleNamespace(schedules=[zone])
    at_work = server.runs[server.add(Running())]
    scheduled = datetime(2026, 3, 1, 23, tzinfo=UTC)
    runs = [waiting(server, name, expected_start_time=scheduled) for name in ("Scheduled", "Late")]
    others = [waiting(server, "AwaitingRetry"), waiting(server, seconds=1), waiting(server, pool="small")]
    for _ in range(3):
        tell_queued(server, POOL, [at_work], datetime.now(UTC))
    message = "Waits until a worker has time for it. When it came, these were at work: tiny."
    for run in runs:
        assert server.history[run] == [("Queued", message)]
        assert server.runs[run].name == "tiny/night-2026-03-02 pretrain.steps=3"
    assert [server.history[run] for run in others] == [[], [], []]
    assert server.runs[others[-1]].name == "tiny"


@pytest.mark.parametrize(
    ("at_work", "state"),
    [({"night": True}, "In turn"), ({"night": False}, "Queued"), ({}, "Queued")],
)
def test_only_a_night_that_waits_for_nights_alone_waits_in_turn(server, at_work, state):
    server.read_deployment = lambda deployment: SimpleNamespace(schedules=[])
    night = server.runs[server.add(Running(), parameters={"night": True})]
    other = server.runs[server.add(Running(), parameters=at_work)]
    run = waiting(server, parameters={**BUSY, "night": True})
    tell_queued(server, POOL, [night, other], datetime.now(UTC))
    assert [name for name, _ in server.history[run]] == [state]
    by_hand = waiting(server)
    tell_queued(server, POOL, [night, other], datetime.now(UTC))
    assert [name for name, _ in server.history[by_hand]] == ["Queued"]


def test_a_run_that_waits_for_no_other_is_late(server):
    server.read_deployment = lambda deployment: SimpleNamespace(schedules=[])
    run = waiting(server)
    tell_queued(server, POOL, [], datetime.now(UTC))
    assert server.history[run] == []
