"""Server, work pool, worker and deployments on one machine: ``python -m deployments.serve``, or ``make serve``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from deployments.deployed import check_deployed
from deployments.edited import changes, deployments_on, described, keep_edited
from deployments.flow_runs.lost_runs import LostRuns
from deployments.flow_runs.planned_stop import planned_stop
from deployments.gpu_workers import WHOLE_MACHINE, gpu_shares
from deployments.home import home
from deployments.kubernetes_pool import OPTION, ensure_pods_pool
from deployments.nightly import Nightly, prefect_file
from deployments.notifications import NIGHTLY, ensure_notifications
from deployments.server import DEFAULT_PORT, running_server, server_or_running_one
from deployments.stage_pool import deploy_stages
from deployments.supervised import Supervised
from deployments.work_pool import POOL, ensure_pool, worker_name
from flows.interruption.by_signal import hangup_as_sigterm
from flows.server.configured_server import check_proxies
from flows.server.server import healthy
from tasks.process.process import started
from titanflow.common.errors import ConfigError, Problem, StageFailed, TitanflowError
from titanflow.common.utf8_mode import replace_what_no_terminal_shows, restart_in_utf8_mode
from titanflow.config.experiment import load_experiment
from titanflow.files.caches import can_be_written, move_unwritable

DEPLOY_SECONDS = 120.0
WATCH_SECONDS = 1.0
LOOK_SECONDS = 10.0
"""How often runs are looked after; a lost one is known after three looks."""
# Prefect's 10 s are most of the time between a run's submission and its start.
WORKER_ENV = {"PREFECT_WORKER_QUERY_SECONDS": "2"}


def main(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help=f"The server's port, if none is running; by default {DEFAULT_PORT}."),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help=f"Start only a worker, on a server that runs already: for whole runs ({POOL}), or for the stages with "
            "this launcher.pool."
        ),
    ] = None,
    job: Annotated[
        list[str] | None,
        typer.Option(help="With --pool: stages are pods of Kubernetes with this variable, as image=IMAGE; repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many runs a worker takes at a time.")] = 1,
    one_worker_per_gpu: Annotated[
        bool, typer.Option(help="Start a worker for each GPU; by default one worker has all.")
    ] = False,
    experiment: Annotated[
        str | None, typer.Option(help="The experiment that nightly runs.", envvar="TITANFLOW_NIGHTLY_EXPERIMENT")
    ] = None,
    nightly_cron: Annotated[
        str | None,
        typer.Option(help="The time as in cron: '0 2 * * *' is two at night.", envvar="TITANFLOW_NIGHTLY_CRON"),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="The time zone, as Europe/Berlin.", envvar="TITANFLOW_NIGHTLY_TIMEZONE")
    ] = None,
) -> None:
    """Serves the deployments on-demand and nightly until ^C."""
    restart_in_utf8_mode()
    replace_what_no_terminal_shows()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    hangup_as_sigterm()
    try:
        check_proxies()
        check_prefect_home()
        if moved := move_unwritable():
            print(f"warning: {moved}", file=sys.stderr)
        if job and (pool is None or one_worker_per_gpu):
            raise ConfigError(Problem("stages are pods", OPTION, expected="--pool, and no --one-worker-per-gpu"))
        if pool is not None and job:
            serve_pods(port, pool, limit, job)
        elif pool is not None:
            serve_pool(port, pool, limit, one_worker_per_gpu)
        else:
            serve(port, limit, one_worker_per_gpu, Nightly(experiment, nightly_cron, timezone))
    except KeyboardInterrupt:
        print("stopped", flush=True)
    except TitanflowError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def serve(port: int | None, limit: int, one_worker_per_gpu: bool, nightly: Nightly) -> None:
    """Starts what isn't running yet, deploys, and watches until it is interrupted; then stops what it started."""
    here = home()
    logs = logs_of()
    shares = gpu_shares() if one_worker_per_gpu else WHOLE_MACHINE
    deployments = prefect_file(nightly, logs)
    with contextlib.ExitStack() as stack:
        url, server = stack.enter_context(server_or_running_one(port, logs))
        env = {"PREFECT_API_URL": url, "TITANFLOW_HOME": str(here)}
        ensure_pool(url)
        workers = stack.enter_context(working_for_each(shares, env, limit, logs))
        before = deployments_on(url, deployments)
        keep_edited(deployments, before, nightly)
        deploy(env, logs, deployments)
        after = deployments_on(url, deployments)
        for change in changes(before, after):
            print(change, flush=True)
        notify(url, str(after[NIGHTLY].parameters.get("experiment")))
        print(welcome(url, logs, described(after[NIGHTLY])), flush=True)
        watch(server, workers, LostRuns(url, lambda line: print(line, flush=True)))


def serve_pool(port: int | None, pool: str, limit: int, one_worker_per_gpu: bool) -> None:
    """Works for a pool until it is interrupted, on the server of the runs."""
    here = home()
    url = running_server(port)
    logs = logs_of(pool)
    if pool == POOL:
        check_deployed(url, here)
        served = "runs"
    else:
        ensure_pool(url, pool)
        served = f"stages with launcher.pool: {pool}"
    env = {"PREFECT_API_URL": url, "TITANFLOW_HOME": str(here)}
    shares = gpu_shares() if one_worker_per_gpu else WHOLE_MACHINE
    with working_for_each(shares, env, limit, logs, pool) as workers:
        if pool != POOL:
            deploy_stages(url, pool, here)
        print(f"{served} run here; logs: {logs}. ^C stops the worker.", flush=True)
        watch(None, workers, LostRuns(url, lambda line: print(line, flush=True), pool))


def serve_pods(port: int | None, pool: str, limit: int, job: Sequence[str]) -> None:
    """Works for a pool of Kubernetes until it is interrupted; its pods go on without it."""
    check_name(pool)
    url = running_server(port)
    pods = ensure_pods_pool(url, pool, job)
    deploy_stages(url, pool, pods.folder, variables=pods.asked)
    logs = logs_of(pool)
    with working({"PREFECT_API_URL": url, **pods.worker_environment}, limit, logs, pool=pool) as worker:
        print(f"stages with launcher.pool: {pool} become pods; logs: {logs}. ^C stops the worker.", flush=True)
        watch(None, [worker], LostRuns(url, lambda line: print(line, flush=True), pool))


def check_name(pool: str) -> None:
    if pool == POOL:
        hint = "stages without launcher.pool run there"
        raise ConfigError(Problem(f"found {pool!r}, the pool of whole runs", "--pool", expected="another", hint=hint))


def check_prefect_home() -> None:
    """Refuses a home of Prefect's that can't be written: the database and the logs in it have to last."""
    if not can_be_written(folder := PREFECT_HOME.value()):
        found, expected = f"{folder} can't be written", "a folder that can, and that lasts: PREFECT_HOME=…"
        raise ConfigError(Problem(found, "PREFECT_HOME", expected=expected))


def logs_of(pool: str = "") -> Path:
    logs = Path(PREFECT_HOME.value(), "titanflow", pool)
    logs.mkdir(parents=True, exist_ok=True)
    return logs


@contextlib.contextmanager
def working_for_each(
    shares: Mapping[str, Mapping[str, str]], env: Mapping[str, str], limit: int, logs: Path, pool: str = POOL
) -> Iterator[list[Supervised]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(working({**env, **own}, limit, logs, share, pool)) for share, own in shares.items()]


@contextlib.contextmanager
def working(env: Mapping[str, str], limit: int, logs: Path, share: str = "", pool: str = POOL) -> Iterator[Supervised]:
    """A worker of the ``pool`` for as long as the block lasts; its name ends with its ``share`` of the machine."""
    name = worker_name(share)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    command += ["--name", name, "--limit", str(limit)]
    worker = Supervised("worker", command, logs / f"worker{share}.log", {**env, **WORKER_ENV}, name=name)
    try:
        yield worker
    finally:
        with contextlib.ExitStack() as stop:
            stop.callback(worker.stop)
            if healthy(env["PREFECT_API_URL"]):
                stop.enter_context(planned_stop(env["PREFECT_API_URL"], name, pool))
                worker.stop()


def deploy(env: Mapping[str, str], logs: Path, deployments: Path) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(deployments)]
    log = logs / "deploy.log"
    log.unlink(missing_ok=True)
    with started(command, log, env) as process:
        if (status := process.wait(DEPLOY_SECONDS)) != 0:
            said = log.read_text(errors="replace", encoding="utf-8")
            ended = f"ended with {status}" if status is not None else f"didn't end in {DEPLOY_SECONDS:g} s"
            raise StageFailed(f"prefect deploy {ended}:\n{said}")


def notify(url: str, experiment: str) -> None:
    """Makes the notices of nightly's experiment, which may have been edited in the UI since it was checked."""
    try:
        loaded = load_experiment(experiment)
    except ConfigError as error:
        print(f"nightly can't run, and nobody is notified: {error}", file=sys.stderr, flush=True)
        return
    with temporary_settings({PREFECT_API_URL: url}):
        ensure_notifications(loaded)


def welcome(url: str, logs: Path, nightly: str) -> str:
    return "\n".join(
        [
            f"Prefect's UI: {url.removesuffix('/api')}    logs: {logs}",
            "Try, in another terminal:",
            f"  export PREFECT_API_URL={url}",
            *([f"  export NO_PROXY={hosts}"] if (hosts := os.environ.get("NO_PROXY")) else []),
            "  prefect deployment run pretrain-sft/on-demand --watch",
            "  prefect deployment run pretrain-sft/on-demand --param pretrain_steps=50 --param run=short --watch",
            f"{nightly} ^C stops everything.",
        ]
    )


def watch(server: Supervised | None, workers: Sequence[Supervised], lost: LostRuns) -> None:
    """Restarts what ends and looks after lost runs, for ever: until a process has ended too often."""
    looked = -LOOK_SECONDS
    while True:
        time.sleep(WATCH_SECONDS)
        # The server first: it is asked for the runs of a lost worker.
        for service in [server, *workers] if server else workers:
            if service.process.returncode is None:
                continue
            if service is not server:
                lost.worker_ended(service.name)
            print(service.restart_if_ended(), file=sys.stderr, flush=True)
        if time.monotonic() - looked >= LOOK_SECONDS:
            lost.look()
            looked = time.monotonic()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
