"""What is edited on the server between two starts of ``serve``; tests/survival has real ones."""

from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from deployments.deployed import IN_FOLDER
from deployments.edited import changes, described, keep_edited, nights_served
from deployments.nightly import Nights, check_nights, deployments, with_nights
from deployments.serve import welcome

PARAMETERS = {"run": "{date}", "night": True, "experiment": "stdlib", "pretrain_steps": 7}


def schedule(cron="0 3 * * *", active=True, timezone="UTC"):
    return DeploymentSchedule(schedule=CronSchedule(cron=cron, timezone=timezone), active=active)


NAME = "nightly-stdlib_nightly"


def deployment(*schedules, parameters=PARAMETERS, **edited):
    return DeploymentResponse(
        name=NAME, flow_id=uuid4(), parameters=parameters, schedules=list(schedules), **{"paused": False, **edited}
    )


def deployed(found, asked, name=NAME):
    """What is deployed, for a night or under another name."""
    content = with_nights(deployments(), check_nights(asked), asked)
    kept = keep_edited(content["deployments"], {found.name: found} if found else {}, asked)
    return {one["name"]: one for one in kept}[name]


def test_the_first_time_it_is_as_prefect_yaml_has_it():
    nightly = deployed(None, Nights())
    assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC", "active": True}]
    assert "paused" not in nightly


def test_parameters_schedules_and_pause_stay():
    nightly = deployed(deployment(schedule(active=False), paused=True), Nights())
    assert (nightly["parameters"], nightly["paused"]) == (PARAMETERS, True)
    assert "schedules" not in nightly


@pytest.mark.parametrize(
    ("schedules", "asked", "wanted"),
    [
        ([schedule(active=False)], Nights(cron="0 4 * * *"), ("0 4 * * *", "UTC", False)),
        ([schedule()], Nights(timezone="Europe/Berlin"), ("0 3 * * *", "Europe/Berlin", True)),
        ([schedule(active=False)], Nights(cron="0 3 * * *"), None),
        ([schedule(), schedule("0 5 * * *", False)], Nights(cron="0 3 * * *"), ("0 3 * * *", "UTC", True)),
        (
            [DeploymentSchedule(schedule=IntervalSchedule(interval=60))],
            Nights(cron="0 3 * * *"),
            ("0 3 * * *", "UTC", True),
        ),
        ([], Nights(cron="0 3 * * *"), ("0 3 * * *", "UTC", True)),
    ],
)
def test_the_command_line_counts_for_more_and_ends_no_pause(schedules, asked, wanted):
    nightly = deployed(deployment(*schedules), asked)
    found = nightly.get("schedules")
    assert found == ([dict(zip(("cron", "timezone", "active"), wanted, strict=True))] if wanted else None)


def test_the_experiment_of_the_command_line_leaves_the_other_parameters():
    nightly = deployed(deployment(), Nights(("stdlib_nightly",)))
    assert nightly["parameters"] == {**PARAMETERS, "experiment": "stdlib_nightly"}


def test_an_experiment_that_is_named_again_has_a_night_again():
    asked = Nights(("stdlib_nightly",))
    assert deployed(deployment(), asked)["schedules"] == [{"cron": "0 2 * * *", "timezone": "UTC", "active": True}]
    assert "schedules" not in deployed(deployment(), Nights())
    assert "schedules" not in deployed(deployment(schedule(active=False)), asked)


def test_the_configs_of_the_command_line_are_those_of_all_runs(tmp_path):
    asked = Nights(configs=str(tmp_path))
    assert deployed(deployment(), asked)["parameters"] == {**PARAMETERS, "configs": str(tmp_path)}
    assert deployed(None, asked)["parameters"]["configs"] == str(tmp_path)
    assert deployed(None, asked, "on-demand")["parameters"] == {"configs": str(tmp_path)}
    assert "parameters" not in deployed(None, Nights(), "on-demand")


def test_without_a_word_the_nights_are_those_that_there_are():
    mine, by_hand = deployment(schedule()), deployment(parameters={"experiment": "stdlib"})
    found, written = {"nightly-mine": mine, "on-demand": by_hand}, {NAME: "stdlib_nightly"}
    assert nights_served(found, written, Nights()) == {"nightly-mine": "stdlib"}
    assert nights_served({}, written, Nights()) == written
    assert nights_served(found, {"nightly-a": "a"}, Nights(("a",))) == {"nightly-a": "a"}


def test_a_night_whose_deployment_was_deleted_stays_away():
    by_hand = deployment(parameters={"experiment": "stdlib"})
    assert nights_served({"on-demand": by_hand}, {NAME: "stdlib_nightly"}, Nights()) == {}
    content = with_nights(deployments(), {}, Nights())
    assert [one["name"] for one in content["deployments"]] == ["on-demand"]
    assert "No nights: --experiment NAME makes one." in welcome("http://127.0.0.1:4200/api", Path("logs"), [])


def test_what_does_not_stay_is_said():
    before = deployment(schedule(active=False), tags=["mine"], pull_steps=[{IN_FOLDER: {"directory": "/a"}}])
    after = deployment(schedule("0 4 * * *", active=False), pull_steps=[{IN_FOLDER: {"directory": "/b"}}])
    assert sorted(changes({NAME: before}, {NAME: after})) == [
        f"{NAME}: the folder that runs start in /a → /b, as this was started",
        f"{NAME}: the schedule 0 3 * * * (UTC), paused → 0 4 * * * (UTC), paused, as this was started",
        f"{NAME}: the tags ['mine'] → [], as this was started",
    ]
    assert list(changes({}, {NAME: after})) == []


@pytest.mark.parametrize(
    ("nightly", "says"),
    [
        (deployment(schedule()), f"{NAME} runs stdlib at 0 3 * * * (UTC)."),
        (deployment(schedule(active=False)), f"{NAME} runs stdlib at 0 3 * * * (UTC), paused."),
        (deployment(schedule(), paused=True), f"{NAME} runs stdlib at 0 3 * * * (UTC); it is paused."),
        (deployment(), f"{NAME} runs stdlib at no schedule."),
    ],
)
def test_a_start_says_when_nightly_runs_what(nightly, says):
    assert described(nightly) == says
