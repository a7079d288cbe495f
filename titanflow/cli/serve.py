"""``titanflow serve``: Prefect's server and a worker, for runs by hand and by night."""

from __future__ import annotations

from typing import Annotated

import typer

from titanflow.cli.app import ConfigsOption
from titanflow.cli.completion import experiment_names


def serve(
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="The server's port, if none is running; by default 4200."),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool",
            help="Start only a worker, on a server that runs already: for whole runs (titanflow), or for stages "
            "with this launcher.pool.",
            metavar="POOL",
        ),
    ] = None,
    job: Annotated[
        list[str] | None,
        typer.Option(
            "--job",
            help="With --pool: stages are pods of Kubernetes with this variable, as image=IMAGE; may be given several "
            "times.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many runs a worker takes at a time.")] = 1,
    one_worker_per_gpu: Annotated[
        bool, typer.Option("--one-worker-per-gpu", help="Start a worker for each GPU; by default one worker has all.")
    ] = False,
    experiments: Annotated[
        list[str] | None,
        typer.Option(
            "--experiment",
            help="An experiment with a night of its own; may be given several times.",
            envvar="TITANFLOW_NIGHTLY_EXPERIMENT",
            metavar="EXPERIMENT",
            autocompletion=experiment_names,
        ),
    ] = None,
    nightly_cron: Annotated[
        str | None,
        typer.Option(
            "--nightly-cron",
            help="The time of the nights as in cron: '0 2 * * *' is two at night.",
            envvar="TITANFLOW_NIGHTLY_CRON",
            metavar="CRON",
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone", help="Its time zone, as Europe/Berlin.", envvar="TITANFLOW_NIGHTLY_TIMEZONE", metavar="ZONE"
        ),
    ] = None,
    configs: ConfigsOption = None,
) -> None:
    """Serve Prefect's UI, and take runs by hand and by night, until ^C."""
    from flows.server.prefect_settings import check_prefect_settings

    check_prefect_settings()
    from deployments.nightly import Nights
    from deployments.serve import Workers, serve_until_stopped

    nights = Nights(tuple(experiments or ()), nightly_cron, timezone, None if configs is None else str(configs))
    serve_until_stopped(port, pool, job or [], Workers(limit, one_worker_per_gpu), nights)
