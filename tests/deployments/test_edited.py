"""What is edited on the server between two starts of ``serve``; tests/survival has real ones."""

from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from deployments.edited import changes, described, keep_edited
from deployments.nightly import Nightly, prefect_file

PARAMETERS = {"run": "{date}", "night": True, "experiment": "stdlib", "pretrain_steps": 7}


def schedule(cron="0 3 * * *", active=True, timezone="UTC"):
    return DeploymentSchedule(schedule=CronSchedule(cron=cron, timezone=timezone), active=active)


def deployment(*schedules, parameters=PARAMETERS, **edited):
    return DeploymentResponse(
        name="nightly", flow_id=uuid4(), parameters=parameters, schedules=list(schedules), **{"paused": False, **edited}
    )


def deployed(tmp_path, found, asked):
    """What is deployed as nightly."""
    path = prefect_file(asked, tmp_path)
    keep_edited(path, {"nightly": found} if found else {}, asked)
    return {one["name"]: one for one in yaml.safe_load(path.read_text())["deployments"]}["nightly"]


def test_the_first_time_it_is_as_prefect_yaml_has_it(tmp_path):
    nightly = deployed(tmp_path, None, Nightly())
    assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC", "active": True}]
    assert "paused" not in nightly


def test_parameters_schedules_and_pause_stay(tmp_path):
    nightly = deployed(tmp_path, deployment(schedule(active=False), paused=True), Nightly())
    assert (nightly["parameters"], nightly["paused"]) == (PARAMETERS, True)
    assert "schedules" not in nightly


@pytest.mark.parametrize(
    ("schedules", "asked", "wanted"),
    [
        ([schedule(active=False)], Nightly(cron="0 4 * * *"), ("0 4 * * *", "UTC", False)),
        ([schedule()], Nightly(timezone="Europe/Berlin"), ("0 3 * * *", "Europe/Berlin", True)),
        ([schedule(active=False)], Nightly(cron="0 3 * * *"), None),
        ([schedule(), schedule("0 5 * * *", False)], Nightly(cron="0 3 * * *"), ("0 3 * * *", "UTC", True)),
        (
            [DeploymentSchedule(schedule=IntervalSchedule(interval=60))],
            Nightly(cron="0 3 * * *"),
            ("0 3 * * *", "UTC", True),
        ),
        ([], Nightly(cron="0 3 * * *"), ("0 3 * * *", "UTC", True)),
    ],
)
def test_the_command_line_counts_for_more_and_ends_no_pause(tmp_path, schedules, asked, wanted):
    nightly = deployed(tmp_path, deployment(*schedules), asked)
    found = nightly.get("schedules")
    assert found == ([dict(zip(("cron", "timezone", "active"), wanted, strict=True))] if wanted else None)


def test_the_experiment_of_the_command_line_leaves_the_other_parameters(tmp_path):
    nightly = deployed(tmp_path, deployment(), Nightly("stdlib_nightly"))
    assert nightly["parameters"] == {**PARAMETERS, "experiment": "stdlib_nightly"}


def test_what_does_not_stay_is_said():
    before = deployment(schedule(active=False), tags=["mine"])
    after = deployment(schedule("0 4 * * *", active=False))
    assert sorted(changes({"nightly": before}, {"nightly": after})) == [
        "nightly: the schedule 0 3 * * * (UTC), paused → 0 4 * * * (UTC), paused, as this was started",
        "nightly: the tags ['mine'] → [], as this was started",
    ]
    assert list(changes({}, {"nightly": after})) == []


@pytest.mark.parametrize(
    ("nightly", "says"),
    [
        (deployment(schedule()), "nightly runs stdlib at 0 3 * * * (UTC)."),
        (deployment(schedule(active=False)), "nightly runs stdlib at 0 3 * * * (UTC), paused."),
        (deployment(schedule(), paused=True), "nightly runs stdlib at 0 3 * * * (UTC); it is paused."),
        (deployment(), "nightly runs stdlib at no schedule."),
    ],
)
def test_a_start_says_when_nightly_runs_what(nightly, says):
    assert described(nightly) == says
