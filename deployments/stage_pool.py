"""The deployment of single stages in a work pool of its own: ``titanflow serve --pool NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema

from deployments.deployed import IN_FOLDER
from flows.stage import run_stage
from flows.stage_in_pool import FLOW

ENTRYPOINT = "flows.stage.run_stage"


def deploy_stages(
    url: str,
    pool: str,
    folder: Path,
    entrypoint: str = ENTRYPOINT,
    variables: Mapping[str, Any] | None = None,
) -> None:
    """Makes ``run-stage/<pool>``, which runs the stages with ``launcher.pool: <pool>`` in ``folder``.

    ``variables`` are what the pool's template is filled with.
    """
    steps = [{IN_FOLDER: {"directory": str(folder)}}]
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        client.create_deployment(
            client.create_flow_from_name(FLOW),
            pool,
            description=f"Stages with launcher.pool: {pool}; started by the runs that they are stages of.",
            work_pool_name=pool,
            entrypoint=entrypoint,
            pull_steps=steps,
            job_variables=dict(variables or {}),
            parameter_openapi_schema=parameter_schema(run_stage).model_dump(),
        )
