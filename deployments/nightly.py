"""The nights: a deployment for each experiment that has them, as ``prefect.yaml`` describes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.client.schemas.schedules import CronSchedule

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.experiment import Experiment, load_experiment

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
NIGHTLY = "nightly-"
"""Begins the name of a night's deployment."""
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
    _check("--nightly-cron", cron, CRON_EXPECTED, lambda: CronSchedule(cron=cron))
    _check("--timezone", zone, "a name as Europe/Berlin", lambda: CronSchedule(cron=cron, timezone=zone))
    nights: dict[str, str] = {}
    for experiment in asked.experiments or [template["parameters"]["experiment"]]:
        name = nightly_name(load_experiment(experiment, asked.configs))
        if name in nights:
            hint = "their runs would lie in one folder; set another exp_name in one of them"
            raise ConfigError(Problem(f"{nights[name]} and {experiment} have one name", "--experiment", hint=hint))
        nights[name] = experiment
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


def _check(option: str, found: str, expected: str, build: Callable[[], object]) -> None:
    try:
        build()
    except ValueError as error:
        raise ConfigError(Problem(f"found {found!r}", key=option, expected=expected)) from error
