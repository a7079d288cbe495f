"""The nightly deployment: ``prefect.yaml`` describes it, and the command line may change that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.client.schemas.schedules import CronSchedule

from deployments.notifications import NIGHTLY
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.experiment import load_experiment

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
CRON_EXPECTED = "minute hour day month weekday, as '30 0 * * *'"


@dataclass(frozen=True)
class Nightly:
    """Changes to ``prefect.yaml``; None keeps its value."""

    experiment: str | None = None
    cron: str | None = None
    timezone: str | None = None


def prefect_file(nightly: Nightly, folder: Path) -> Path:
    """Writes the changed ``prefect.yaml`` into ``folder``; checked before anything is started."""
    deployments: dict[str, Any] = yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))
    deployment = next(one for one in deployments["deployments"] if one["name"] == NIGHTLY)
    schedule, parameters = deployment["schedules"][0], deployment["parameters"]
    schedule["cron"] = nightly.cron or schedule["cron"]
    schedule["timezone"] = nightly.timezone or schedule["timezone"]
    parameters["experiment"] = nightly.experiment or parameters["experiment"]
    cron, zone = schedule["cron"], schedule["timezone"]
    _check("--nightly-cron", cron, CRON_EXPECTED, lambda: CronSchedule(cron=cron))
    _check("--timezone", zone, "a name as Europe/Berlin", lambda: CronSchedule(cron=cron, timezone=zone))
    load_experiment(parameters["experiment"])
    path = folder / DEPLOYMENTS.name
    path.write_text(yaml.safe_dump(deployments, sort_keys=False), encoding="utf-8")
    return path


def _check(option: str, found: str, expected: str, build: Callable[[], object]) -> None:
    try:
        build()
    except ValueError as error:
        raise ConfigError(Problem(f"found {found!r}", key=option, expected=expected)) from error
