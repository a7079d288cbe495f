"""What the nightly deployment does: ``prefect.yaml`` says it, and a command line may say it otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.notifications import NIGHTLY, ensure_notifications
from titanflow.config.experiment import load_experiment
from titanflow.errors import ConfigError, Problem

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
CRON_EXPECTED = "minute hour day month weekday, as '30 0 * * *'"


@dataclass(frozen=True)
class Deployed:
    """A ``prefect.yaml`` to apply, and what its nightly does, in words."""

    path: Path
    described: str


@dataclass(frozen=True)
class Nightly:
    """What is said otherwise than in ``prefect.yaml``; None is as it stands there."""

    experiment: str | None = None
    cron: str | None = None
    timezone: str | None = None

    def notify(self, url: str) -> None:
        """Makes the automations that the experiment's ``notify`` asks for.

        Raises:
            ConfigError: the experiment can't be used, or names a webhook block that isn't there.
        """
        chosen = _nightly(_deployments())["parameters"]["experiment"] if self.experiment is None else self.experiment
        with temporary_settings({PREFECT_API_URL: url}):
            ensure_notifications(load_experiment(chosen))


def prefect_file(nightly: Nightly, folder: Path) -> Deployed:
    """``prefect.yaml`` with what is said otherwise, written into ``folder``; checked before anything is started.

    Raises:
        ConfigError: no such experiment, time or time zone.
    """
    deployments = _deployments()
    deployment = _nightly(deployments)
    schedule, parameters = deployment["schedules"][0], deployment["parameters"]
    schedule["cron"] = nightly.cron or schedule["cron"]
    schedule["timezone"] = nightly.timezone or schedule["timezone"]
    parameters["experiment"] = nightly.experiment or parameters["experiment"]
    cron, zone = schedule["cron"], schedule["timezone"]
    _check("--nightly-cron", cron, CRON_EXPECTED, lambda: CronSchedule(cron=cron))
    _check("--timezone", zone, "a name as Europe/Berlin", lambda: CronSchedule(cron=cron, timezone=zone))
    load_experiment(parameters["experiment"])
    path = folder / DEPLOYMENTS.name
    path.write_text(yaml.safe_dump(deployments, sort_keys=False))
    return Deployed(path, f"nightly runs {parameters['experiment']} at {cron} ({zone}).")


def _deployments() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(DEPLOYMENTS.read_text())
    return loaded


def _nightly(deployments: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in deployments["deployments"] if one["name"] == NIGHTLY)


def _check(option: str, found: str, expected: str, build: Callable[[], object]) -> None:
    try:
        build()
    except ValueError as error:
        raise ConfigError(Problem(f"found {found!r}", key=option, expected=expected)) from error
