"""The nights: a deployment for each experiment that has them, as ``prefect.yaml`` describes one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.server.schemas.schedules import CronSchedule

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.experiment import Experiment, load_experiment

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
NIGHTLY = "nightly-"
"""Begins the name of a night's deployment."""
CRON_FIELDS = 5
CRON_EXPECTED = "minute hour day month weekday, as '30 0 * * *'"


@dataclass(frozen=True)
class Nights:
    """What the command line says of the nights, and of the configs of all runs.

    None keeps what the server has, and else what ``prefect.yaml`` says; so does it if no experiment is named.
    """

    experiments: tuple[str, ...] = ()
    cron: str | None = None
    timezone: str | None = None
    configs: str | None = None


def nightly_name(experiment: Experiment) -> str:
    """The name of the deployment that runs an experiment's nights."""
    return f"{NIGHTLY}{experiment.exp_name}"


def is_night(parameters: Mapping[str, Any]) -> bool:
    """Whether a run, or each run of a deployment, with these parameters is a night."""
    return bool(parameters.get("night"))


def check_nights(asked: Nights) -> dict[str, str]:
    """The deployments of the nights that are asked for: name → experiment; checked before anything is started.

    Raises:
        ConfigError: an experiment can't be used or has the name of another one, or the time is none.
    """
    template = _template(deployments())
    (schedule,) = template["schedules"]
    cron, zone = asked.cron or schedule["cron"], asked.timezone or schedule["timezone"]
    _check("--nightly-cron", cron, CRON_EXPECTED, lambda: _first_night(cron))
    _check("--timezone", zone, "a name as Europe/Berlin", lambda: CronSchedule(cron=cron, timezone=zone))
    nights: dict[str, str] = {}
    problems: list[Problem] = []
    for experiment in dict.fromkeys(asked.experiments or [template["parameters"]["experiment"]]):
        try:
            name = nightly_name(load_experiment(experiment, asked.configs))
        except ConfigError as error:
            problems += error.problems
            continue
        if name in nights:
            hint = "their runs would lie in one folder; set another exp_name in one of them"
            problems.append(Problem(f"{nights[name]} and {experiment} have one name", "--experiment", hint=hint))
        nights[name] = experiment
    if problems:
        raise ConfigError(problems)
    return nights


def deployments() -> dict[str, Any]:
    """What ``prefect.yaml`` has."""
    return dict(yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8")))


def with_nights(content: Mapping[str, Any], nights: Mapping[str, str], asked: Nights) -> dict[str, Any]:
    """A ``prefect.yaml`` with a deployment for each night, name → experiment, in place of its one."""
    template = _template(content)
    (schedule,) = template["schedules"]
    schedule = {**schedule, "cron": asked.cron or schedule["cron"], "timezone": asked.timezone or schedule["timezone"]}
    each = [
        {
            **template,
            "name": name,
            "parameters": {**template["parameters"], "experiment": experiment},
            "schedules": [dict(schedule)],
        }
        for name, experiment in nights.items()
    ]
    return {**content, "deployments": [*(one for one in content["deployments"] if one is not template), *each]}


def _template(content: Mapping[str, Any]) -> dict[str, Any]:
    return next(one for one in content["deployments"] if is_night(one.get("parameters", {})))


def _first_night(cron: str) -> None:
    """Finds the first date, refused if there is none (30th of February), or if there are seconds: no night is so short.

    The server would look for it in vain, or start a run each second.
    """
    if len(cron.split()) > CRON_FIELDS:
        raise ValueError("it has seconds")
    asyncio.run(CronSchedule(cron=cron).get_dates(1))


def _check(option: str, found: str, expected: str, build: Callable[[], object]) -> None:
    try:
        build()
    except ValueError as error:
        raise ConfigError(Problem(f"found {found!r}", key=option, expected=expected)) from error
