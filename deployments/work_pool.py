"""The process work pool of the deployments, and the names of its workers."""

from __future__ import annotations

import os
import re
import socket

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings

from titanflow.common.errors import ConfigError, Problem

POOL = "titanflow"
# A process id has at most seven digits on Linux; a name of Prefect's own may end with twelve, the last of a UUID.
WORKER_NAME = re.compile(r"(?P<host>.+?)-\d{1,7}(-gpu.+)?")


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
