"""The process work pool of the deployments, and the runs that a worker has in hand."""

from __future__ import annotations

import os
import re
import socket

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from tasks.process.process import Process
from tasks.ui.labels import WORKER_LABEL
from titanflow.common.errors import ConfigError, Problem

POOL = "titanflow"
IN_HAND = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
WORKER_NAME = re.compile(r"(?P<host>.+?)-\d+(-gpu.+)?")
WORKER_TYPE_LABEL = "prefect.worker.type"
CANCEL_SECONDS = 35
"""Prefect kills a cancelled run after 30 s."""


def worker_name(share: str = "") -> str:
    """The name of a worker that this process starts: ``<host>-<process id>``, and ``-gpu0`` for its share of a host."""
    return f"{socket.gethostname()}-{os.getpid()}{share}"


def host_of(worker: str) -> str:
    """The machine of a worker of that name; empty if something else named it."""
    named = WORKER_NAME.fullmatch(worker)
    return named["host"] if named else ""


def ensure_pool(url: str, pool: str = POOL) -> None:
    """Makes a pool of processes, unless there is one.

    Raises:
        ConfigError: the pool that is there is of another type.
    """
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            if (found := client.read_work_pool(pool).type) != "process":
                hint = "stages become pods of Kubernetes with --job image=IMAGE" if found == "kubernetes" else ""
                raise ConfigError(
                    Problem(f"{pool!r} is of type {found}", "--pool", expected="a pool of type process", hint=hint)
                ) from None


def cancel_runs(url: str, worker_name: str, worker: Process, pool: str = POOL) -> None:
    """Cancels the runs that a worker has in hand, and waits until their stages have saved and ended."""
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        for run in runs_of(client, worker_name, pool):
            print(f"cancelling {run.name} …", flush=True)
            client.set_flow_run_state(run.id, Cancelling(message="titanflow's serve was stopped."), force=True)
        for _ in range(CANCEL_SECONDS):
            if not runs_of(client, worker_name, pool) or worker.wait(1.0) is not None:
                return


def runs_of(client: SyncPrefectClient, worker_name: str, pool: str = POOL) -> list[FlowRun]:
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=IN_HAND))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    # A run that isn't a process of the worker outlives it: a pod of Kubernetes.
    mine = {WORKER_LABEL: worker_name, WORKER_TYPE_LABEL: "process"}
    return [run for run in found if mine.items() <= run.labels.items()]
