"""What was edited in Prefect's UI stays when ``serve`` deploys again, or it is said that it doesn't."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.deployed import FLOW
from deployments.nightly import Nightly
from deployments.notifications import NIGHTLY

Found = Mapping[str, DeploymentResponse]
"""The deployments on a server, by name."""


def deployments_on(url: str, path: Path) -> Found:
    """The deployments of a ``prefect.yaml`` that a server has by now."""
    names = [one["name"] for one in _read(path)["deployments"]]
    found = {}
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        for name in names:
            try:
                found[name] = client.read_deployment_by_name(f"{FLOW}/{name}")
            except ObjectNotFound:
                continue
    return found


def keep_edited(path: Path, found: Found, asked: Nightly) -> None:
    """Changes a ``prefect.yaml`` so that to deploy it keeps each deployment's parameters, schedules and pause.

    ``asked`` is what the command line says of nightly, which counts for more.
    """
    content = _read(path)
    for deployment in content["deployments"]:
        if there := found.get(deployment["name"]):
            deployment |= {"parameters": dict(there.parameters), "paused": there.paused}
            # Without the key, Prefect keeps the schedules that there are.
            written = deployment.pop("schedules", None)
            if deployment["name"] == NIGHTLY:
                if asked.experiment:
                    deployment["parameters"]["experiment"] = asked.experiment
                if schedule := _asked_schedule(there.schedules, written[0], asked):
                    deployment["schedules"] = [schedule]
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def changes(before: Found, after: Found) -> Iterator[str]:
    """Says what a deployment has no more as it was on the server, a line each."""
    for name in before.keys() & after.keys():
        then, now = _shown(before[name]), _shown(after[name])
        for key in then:
            if then[key] != now[key]:
                yield f"{name}: {key} {then[key]} → {now[key]}, as this was started"


def described(nightly: DeploymentResponse) -> str:
    """When nightly runs what."""
    schedules = ", ".join(_schedules(nightly)) or "no schedule"
    paused = "; it is paused" if nightly.paused else ""
    return f"nightly runs {nightly.parameters.get('experiment')} at {schedules}{paused}."


def _asked_schedule(
    schedules: list[DeploymentSchedule], written: Mapping[str, Any], asked: Nightly
) -> dict[str, Any] | None:
    """The schedule that the command line asks for; None if the server has it, or nothing is asked for."""
    if not (asked.cron or asked.timezone):
        return None
    there = schedules[0].schedule if schedules else None
    wanted = {
        "cron": asked.cron or getattr(there, "cron", None) or written["cron"],
        "timezone": asked.timezone or getattr(there, "timezone", None) or written["timezone"],
    }
    if len(schedules) == 1 and all(getattr(there, key, None) == value for key, value in wanted.items()):
        return None
    return {**wanted, "active": not schedules or any(one.active for one in schedules)}


def _shown(deployment: DeploymentResponse) -> dict[str, Any]:
    """What can be edited in the UI."""
    limit = deployment.global_concurrency_limit
    return {
        "the parameters": deployment.parameters,
        "the schedule": ", ".join(_schedules(deployment)) or "none",
        "paused": deployment.paused,
        "the description": deployment.description,
        "the tags": deployment.tags,
        "the job variables": deployment.job_variables,
        "the work queue": deployment.work_queue_name,
        "the concurrency limit": limit.limit if limit else None,
    }


def _schedules(deployment: DeploymentResponse) -> list[str]:
    return sorted(_schedule(one) for one in deployment.schedules)


def _schedule(one: DeploymentSchedule) -> str:
    schedule: Any = one.schedule
    times = getattr(schedule, "cron", None) or getattr(schedule, "rrule", None) or f"every {schedule.interval}"
    return f"{times} ({schedule.timezone or 'UTC'}){'' if one.active else ', paused'}"


def _read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
