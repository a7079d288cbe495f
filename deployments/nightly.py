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
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.experiment import Experiment, load_experiment

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
CRON_EXPECTED = "minute hour day month weekday, as '30 0 * * *'"


@dataclass(frozen=True)
class Deployed:
    """A ``prefect.yaml`` to apply, the experiment of its nightly, and what that does, in words."""

    path: Path
    experiment: Experiment
    described: str

    def notify(self, url: str) -> None:
        """Makes the automations that the experiment's ``notify`` asks for.

        Raises:
            ConfigError: it names a webhook block that isn't there.
        """
        with temporary_settings({PREFECT_API_URL: url}):
            ensure_notifications(self.experiment)


@dataclass(frozen=True)
class Nightly:
    """What is said otherwise than in ``prefect.yaml``; None is as it stands there."""

    experiment: str | None = None
    cron: str | None = None
    timezone: str | None = None


def prefect_file(nightly: Nightly, folder: Path) -> Deployed:
    """``prefect.yaml`` with what is said otherwise, written into ``folder``; checked before anything is started.

    Raises:
        ConfigError: no such experiment, time or time zone.
    """
    deployments: dict[str, Any] = yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))
    deployment = next(one for one in deployments["deployments"] if one["name"] == NIGHTLY)
    schedule, parameters = deployment["schedules"][0], deployment["parameters"]
    schedule["cron"] = nightly.cron or schedule["cron"]
    schedule["timezone"] = nightly.timezone or schedule["timezone"]
    parameters["experiment"] = nightly.experiment or parameters["experiment"]
    cron, zone = schedule["cron"], schedule["timezone"]
    _check("--nightly-cron", cron, CRON_EXPECTED, lambda: CronSchedule(cron=cron))
    _check("--timezone", zone, "a name as Europe/Berlin", lambda: CronSchedule(cron=cron, timezone=zone))
    experiment = load_experiment(parameters["experiment"])
    path = folder / DEPLOYMENTS.name
    path.write_text(yaml.safe_dump(deployments, sort_keys=False), encoding="utf-8")
    return Deployed(path, experiment, f"nightly runs {parameters['experiment']} at {cron} ({zone}).")


def _check(option: str, found: str, expected: str, build: Callable[[], object]) -> None:
    try:
        build()
    except ValueError as error:
        raise ConfigError(Problem(f"found {found!r}", key=option, expected=expected)) from error
