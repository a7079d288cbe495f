"""Server, work pool, worker and deployments on one machine: ``titanflow serve``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import yaml
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from deployments.deployed import check_deployed
from deployments.edited import (
    changes,
    deployments_on,
    described,
    end_other_nights,
    keep_edited,
    nights_served,
    put_braces,
    without_braces,
)
from deployments.flow_runs.lost_runs import LostRuns
from deployments.flow_runs.planned_stop import planned_stop
from deployments.gpu_workers import WHOLE_MACHINE, gpu_shares
from deployments.home import home
from deployments.kubernetes_pool import OPTION, ensure_pods_pool
from deployments.nightly import DEPLOYMENTS, Nights, check_nights, deployments, with_nights
from deployments.notifications import ensure_notifications
from deployments.server import running_server, server_or_running_one
from deployments.stage_pool import deploy_stages
from deployments.supervised import Supervised
from deployments.work_pool import POOL, ensure_pool, worker_name
from flows.interruption.by_signal import hangup_as_sigterm
from flows.server.server import healthy
from tasks.process.process import started
from titanflow.common.console import tell
from titanflow.common.credentials import redact
from titanflow.common.errors import ConfigError, Problem, StageFailed
from titanflow.common.file_lock import open_lock, sign, take
from titanflow.config.experiment import load_experiment
from titanflow.files.caches import can_be_written

DEPLOY_SECONDS = 120.0
WATCH_SECONDS = 1.0
LOOK_SECONDS = 10.0
"""How often runs are looked after; a lost one is known after three looks."""
# Prefect's 10 s are most of the time between a run's submission and its start.
WORKER_ENV = {"PREFECT_WORKER_QUERY_SECONDS": "2"}


@dataclass(frozen=True)
class Workers:
    """How many workers a machine has, one or one for each GPU, and how many runs each takes at a time."""

    limit: int = 1
    one_per_gpu: bool = False

    @property
    def shares(self) -> Mapping[str, Mapping[str, str]]:
        """The end of each worker's name → its environment."""
        return gpu_shares() if self.one_per_gpu else WHOLE_MACHINE


def serve_until_stopped(
    port: int | None, pool: str | None, job: Sequence[str], workers: Workers, nights: Nights
) -> None:
    """Serves the deployments, or works for a ``pool``, until ^C or SIGTERM.

    Raises:
        ConfigError: an option, an experiment or the server can't be used.
        StageFailed: the server or a worker ended too often.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    hangup_as_sigterm()
    try:
        check_prefect_home()
        if job and (pool is None or workers.one_per_gpu):
            raise ConfigError(Problem("stages are pods", OPTION, expected="--pool, and no --one-worker-per-gpu"))
        if pool is not None and nights.configs:
            hint = "the first machine deploys the runs, with their configs; the others only work"
            raise ConfigError(Problem(f"found {nights.configs}", "--configs", expected="no --pool", hint=hint))
        with alone(logs_of(pool)) as logs:
            if pool is not None and job:
                serve_pods(port, pool, workers.limit, job, logs)
            elif pool is not None:
                serve_pool(port, pool, workers, logs)
            else:
                serve(port, workers, nights, logs)
    except KeyboardInterrupt:
        tell("stopped")


def serve(port: int | None, workers: Workers, asked: Nights, logs: Path) -> None:
    """Starts what isn't running yet, deploys, and watches until it is interrupted; then stops what it started."""
    here = home()
    shares, named = workers.shares, check_nights(asked)
    with contextlib.ExitStack() as stack:
        url, server = stack.enter_context(server_or_running_one(port, logs))
        env = {"PREFECT_API_URL": url, "TITANFLOW_HOME": str(here)}
        ensure_pool(url)
        at_work = stack.enter_context(working_for_each(shares, env, workers.limit, logs))
        nights = deploy(url, env, logs, named, asked)
        tell(welcome(url, logs, nights))
        watch(server, at_work, LostRuns(url, tell))


def deploy(url: str, env: Mapping[str, str], logs: Path, nights: Mapping[str, str], asked: Nights) -> list[str]:
    """Deploys, keeping what was edited on the server; says what changed, and returns when which night runs what."""
    before = deployments_on(url)
    wanted = nights_served(before, nights, asked)
    content = with_nights(deployments(), wanted, asked)
    path = logs / DEPLOYMENTS.name
    kept = list(keep_edited(content["deployments"], before, asked))
    written = {**content, "deployments": list(without_braces(kept))}
    path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    run_deploy(env, logs, path)
    put_braces(url, kept)
    end_other_nights(url, before, wanted)
    after = deployments_on(url)
    for change in changes(before, after):
        tell(change)
    for name in wanted:
        notify(url, after[name])
    return [described(after[name]) for name in wanted]


def serve_pool(port: int | None, pool: str, workers: Workers, logs: Path) -> None:
    """Works for a pool until it is interrupted, on the server of the runs."""
    here = home()
    url = running_server(port)
    if pool == POOL:
        check_deployed(url, here)
        served = "runs"
    else:
        ensure_pool(url, pool)
        served = f"stages with launcher.pool: {pool}"
    env = {"PREFECT_API_URL": url, "TITANFLOW_HOME": str(here)}
    with working_for_each(workers.shares, env, workers.limit, logs, pool) as at_work:
        if pool != POOL:
            deploy_stages(url, pool, here)
        tell(f"{served} run here; logs: {logs}. ^C stops the worker.")
        watch(None, at_work, LostRuns(url, tell, pool))


def serve_pods(port: int | None, pool: str, limit: int, job: Sequence[str], logs: Path) -> None:
    """Works for a pool of Kubernetes until it is interrupted; its pods go on without it."""
    check_name(pool)
    url = running_server(port)
    pods = ensure_pods_pool(url, pool, job)
    deploy_stages(url, pool, pods.folder, variables=pods.asked)
    with working({"PREFECT_API_URL": url, **pods.worker_environment}, limit, logs, pool=pool) as worker:
        tell(f"stages with launcher.pool: {pool} become pods; logs: {logs}. ^C stops the worker.")
        watch(None, [worker], LostRuns(url, tell, pool))


def check_name(pool: str) -> None:
    if pool == POOL:
        hint = "stages without launcher.pool run there"
        raise ConfigError(Problem(f"found {pool!r}, the pool of whole runs", "--pool", expected="another", hint=hint))


def check_prefect_home() -> None:
    """Refuses a home of Prefect's that can't be written: the database and the logs in it have to last."""
    if not can_be_written(folder := PREFECT_HOME.value()):
        found, expected = f"{folder} can't be written", "a folder that can, and that lasts: PREFECT_HOME=…"
        raise ConfigError(Problem(found, "PREFECT_HOME", expected=expected))


def logs_of(pool: str | None) -> Path:
    """The folder of the logs; several machines with one home may work for a pool."""
    return Path(PREFECT_HOME.value(), "titanflow", *((pool, socket.gethostname()) if pool else ()))


@contextlib.contextmanager
def alone(logs: Path) -> Iterator[Path]:
    """Holds the folder of the logs for the length of the block: a second worker would take runs beside the first.

    Raises:
        ConfigError: another ``serve`` holds it.
    """
    with open_lock(logs) as file:
        if found := take(file):
            hint = "its --limit says how many runs it takes at a time; another one needs a PREFECT_HOME of its own"
            raise ConfigError(Problem(f"titanflow serve runs already: {found}", str(logs), hint=hint))
        sign(file, f"process {os.getpid()} on {socket.gethostname()}")
        yield logs


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


def run_deploy(env: Mapping[str, str], logs: Path, path: Path) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)]
    log = logs / "deploy.log"
    log.unlink(missing_ok=True)
    with started(command, log, env) as process:
        if (status := process.wait(DEPLOY_SECONDS)) != 0:
            said = log.read_text(errors="replace", encoding="utf-8")
            ended = f"ended with {status}" if status is not None else f"didn't end in {DEPLOY_SECONDS:g} s"
            raise StageFailed(f"prefect deploy {ended}:\n{said}")


def notify(url: str, night: DeploymentResponse) -> None:
    """Makes the notices of a night's experiment.

    Its parameters, or the webhook's block, may have been edited or deleted in the UI: that is told, and ends nothing.
    """
    try:
        loaded = load_experiment(str(night.parameters.get("experiment")), night.parameters.get("configs"))
        with temporary_settings({PREFECT_API_URL: url}):
            ensure_notifications(loaded, night.name)
    except ConfigError as error:
        tell(f"nobody is notified of {night.name}: {error}", to_errors=True)


def welcome(url: str, logs: Path, nights: Sequence[str]) -> str:
    """What to do now; its last line says that all has started."""
    return "\n".join(
        [
            f"Prefect's UI: {redact(url).removesuffix('/api')}    logs: {logs}",
            "Try, in another terminal:",
            f"  export PREFECT_API_URL={redact(url)}",
            *([f"  export NO_PROXY={hosts}"] if (hosts := os.environ.get("NO_PROXY")) else []),
            "  prefect deployment run pretrain-sft/on-demand --watch",
            "  prefect deployment run pretrain-sft/on-demand --param pretrain_steps=50 --param run=short --watch",
            f"Your own, as my.yaml in {Path.cwd()}: --param experiment=my",
            *(nights or ["No nights: --experiment NAME makes one."]),
            *(["Nights that are due at one time take turns."] if len(nights) > 1 else []),
            "^C stops everything.",
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
            tell(service.restart_if_ended(), to_errors=True)
        if time.monotonic() - looked >= LOOK_SECONDS:
            lost.look()
            looked = time.monotonic()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
