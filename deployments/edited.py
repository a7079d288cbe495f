"""What was edited in Prefect's UI stays when ``serve`` deploys again, or it is said that it doesn't."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.deployed import FLOW, folder_of
from deployments.nightly import Nights, is_night

Found = Mapping[str, DeploymentResponse]
"""The deployments on a server, by name."""


def deployments_on(url: str) -> Found:
    """The deployments of whole runs that a server has by now."""
    of_flow = FlowFilter(name=FlowFilterName(any_=[FLOW]))
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        return {one.name: one for one in client.read_deployments(flow_filter=of_flow)}


def nights_on(found: Found) -> dict[str, str]:
    """The nights among a server's deployments: name → experiment."""
    return {name: str(one.parameters.get("experiment")) for name, one in found.items() if is_night(one.parameters)}


def nights_served(found: Found, named: Mapping[str, str], asked: Nights) -> Mapping[str, str]:
    """The nights to serve: those ``named``, or without a word of ``asked`` those on the server, if any are left there.

    A server that has no deployments yet gets what is ``named`` by ``prefect.yaml``.
    """
    return named if asked.experiments or not found else nights_on(found)


def keep_edited(deployments: Iterable[dict[str, Any]], found: Found, asked: Nights) -> Iterator[dict[str, Any]]:
    """The deployments, so that to deploy them keeps what each has on the server: parameters, schedules and pause.

    ``asked`` is what the command line says, which counts for more.
    """
    for deployment in deployments:
        parameters, kept = deployment.get("parameters", {}), dict(deployment)
        if there := found.get(deployment["name"]):
            # Without the key, Prefect keeps the schedules that there are.
            written = kept.pop("schedules", None)
            kept |= {"parameters": dict(there.parameters), "paused": there.paused}
            if is_night(parameters):
                if asked.experiments:
                    kept["parameters"]["experiment"] = parameters["experiment"]
                if schedule := _asked_schedule(there.schedules, written[0], asked):
                    kept["schedules"] = [schedule]
        if asked.configs:
            kept["parameters"] = {**kept.get("parameters", {}), "configs": asked.configs}
        yield kept


def without_braces(deployments: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The deployments as they can stand in a file that Prefect deploys: it fills in whatever has braces (``{{ … }}``).

    Of a chat template it would leave out what it doesn't know, and write a variable or a secret in the place of its
    name. :func:`put_braces` gives them these parameters.
    """
    for deployment in deployments:
        parameters = deployment.get("parameters", {})
        yield {**deployment, "parameters": {name: value for name, value in parameters.items() if not _braced(value)}}


def put_braces(url: str, deployments: Iterable[dict[str, Any]]) -> None:
    """Gives what was deployed :func:`without_braces` its parameters."""
    found = deployments_on(url)
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        for deployment in deployments:
            if _braced(parameters := deployment.get("parameters", {})):
                client.update_deployment(found[deployment["name"]].id, DeploymentUpdate(parameters=parameters))


def _braced(value: Any) -> bool:
    return "{{" in json.dumps(value)


def end_other_nights(url: str, found: Found, wanted: Collection[str]) -> list[str]:
    """Removes the schedules of the nights that are wanted no more; their deployments and runs stay."""
    others = [name for name in nights_on(found) if name not in wanted and found[name].schedules]
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        for name in others:
            for schedule in found[name].schedules:
                client.delete_deployment_schedule(found[name].id, schedule.id)
    return others


def changes(before: Found, after: Found) -> Iterator[str]:
    """Says what a deployment has no more as it was on the server, a line each."""
    for name in before.keys() & after.keys():
        then, now = _shown(before[name]), _shown(after[name])
        for key in then:
            if then[key] != now[key]:
                yield f"{name}: {key} {then[key]} → {now[key]}, as this was started"


def described(nightly: DeploymentResponse) -> str:
    """When a night runs what."""
    schedules = ", ".join(_schedules(nightly)) or "no schedule"
    paused = "; it is paused" if nightly.paused else ""
    return f"{nightly.name} runs {nightly.parameters.get('experiment')} at {schedules}{paused}."


def _asked_schedule(
    schedules: list[DeploymentSchedule], written: Mapping[str, Any], asked: Nights
) -> dict[str, Any] | None:
    """The schedule that the command line asks for; None if the server has it, or nothing is asked for."""
    # An experiment whose night had ended has one again.
    if not (asked.cron or asked.timezone or (asked.experiments and not schedules)):
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
    """What can be edited in the UI, and the folder, which is where ``serve`` was started."""
    limit = deployment.global_concurrency_limit
    return {
        "the folder that runs start in": folder_of(deployment),
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
