"""A worker for each GPU: what each may see, and how many runs there may be at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.process.device_lock import VISIBLE, gpu_names
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.device import Device, this_machine

WHOLE_MACHINE: Mapping[str, Mapping[str, str]] = {"": {}}
ON_DEMAND = "pretrain-sft/on-demand"


def gpu_shares(
    machine: Device | None = None, environ: Mapping[str, str] = os.environ
) -> Mapping[str, Mapping[str, str]]:
    """The end of each worker's name → its environment, which its runs inherit: one GPU each."""
    machine = machine or this_machine(environ)
    names = gpu_names(machine, environ)
    if names:
        return {f"-gpu{name}": {VISIBLE: name} for name in names}
    hint = f"name them in {VISIBLE}, or leave the option out: one worker then has the whole machine"
    raise ConfigError(Problem(f"no GPU to count: {machine.found}", key="--one-worker-per-gpu", hint=hint))


def allow_runs(url: str, number: int) -> None:
    """Lets the on-demand deployment have so many runs at a time; its default is one."""
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(ON_DEMAND)
        client.update_deployment(deployment.id, DeploymentUpdate(concurrency_limit=number))
