"""What the deployments on a server ask of a further machine that works for them."""

from __future__ import annotations

from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from titanflow.common.credentials import redact
from titanflow.common.errors import ConfigError, Problem

FLOW = "pretrain-sft"
"""The flow of whole runs."""
ON_DEMAND = f"{FLOW}/on-demand"
IN_FOLDER = "prefect.deployments.steps.set_working_directory"
"""The step of a deployment by which its runs start in a folder."""


def check_deployed(url: str, here: Path) -> None:
    """Refuses to work for deployments that aren't there, or whose runs start in another folder than ``here``.

    Only one machine deploys: each would set the folder of all runs, and the night's time and experiment.
    """
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        try:
            deployed = client.read_deployment_by_name(ON_DEMAND)
        except ObjectNotFound as error:
            hint = "deploy once, on one machine: titanflow serve, without --pool"
            raise ConfigError(Problem(f"{redact(url)} has no deployment {ON_DEMAND}", "--pool", hint=hint)) from error
    if (folder := folder_of(deployed)) != str(here):
        hint = "start this there; all machines need it at the same path, on storage that they share"
        raise ConfigError(Problem(f"started in {here}", "--pool", expected=f"{folder}, where runs start", hint=hint))


def folder_of(deployment: DeploymentResponse) -> str | None:
    """The folder that a deployment's runs start in, from which relative paths count."""
    steps = deployment.pull_steps or []
    return next((step[IN_FOLDER]["directory"] for step in steps if IN_FOLDER in step), None)
