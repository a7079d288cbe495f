"""Runs whose machine is gone, as another machine of the same work pool sees it.

Each machine looks after its own runs. One that lost its power for good, or that came back under another name, can't:
the first of the pool's machines does it for them. It goes by the workers that the server hears of, and by the sign of
life in the run's folder: a run whose machine only can't reach the server isn't disturbed.
"""

from __future__ import annotations

import socket
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, WorkerStatus

from deployments.work_pool import host_of
from flows.sign_of_life import Watch
from tasks.ui.labels import SIGN_LABEL, WORKER_LABEL


class LostMachines:
    """The machines that work for a pool, as the server knew them at the last :meth:`look`."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._online: set[str] = set()
        self._watches: dict[UUID, Watch] = {}

    def look(self, client: SyncPrefectClient) -> None:
        # The server takes a worker for offline when it has missed three heartbeats, which is after 90 s.
        workers = client.read_workers_for_work_pool(self._pool)
        self._online = {worker.name for worker in workers if worker.status == WorkerStatus.ONLINE}

    def has(self, run: FlowRun) -> bool:
        """Whether a run's machine is gone, and this one looks after its runs."""
        hosts = sorted(filter(None, map(host_of, self._online)))
        if hosts[:1] != [socket.gethostname()] or run.labels.get(WORKER_LABEL) in self._online:
            return False
        if SIGN_LABEL not in run.labels:
            # It hasn't begun.
            return True
        return not self._watches.setdefault(run.id, Watch(Path(str(run.labels[SIGN_LABEL])))).holder()
