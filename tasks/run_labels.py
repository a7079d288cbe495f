"""What is written at a flow run: whose it is, and what to know of it when the flow itself is gone."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import psutil
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from titanflow.config.experiment_spec import Retries

LOST_LABEL, DELAY_LABEL = "titanflow.retries.lost", "titanflow.retries.delay"
"""A run's ``retries``."""
PROCESS_LABEL = "titanflow.process"
"""A run's process: host, id, start."""
WHO_LABEL = "titanflow."
"""What stands before ``work_group`` and ``user_name``, as far as a run has them."""


def label_run(retries: Retries, who: Mapping[str, str]) -> None:
    """Writes a flow run's labels; a server that is away costs no run."""
    own = f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.2f}"
    labels: dict[str, Any] = {LOST_LABEL: retries.lost, DELAY_LABEL: retries.delay, PROCESS_LABEL: own}
    labels |= {f"{WHO_LABEL}{key}": name for key, name in who.items() if name}
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(UUID(flow_run.id), labels)
    except Exception as error:
        get_run_logger().warning("the run's labels can't be written (%s)", error)


def labelled_process_lives(label: str) -> bool:
    """Whether the process of a label still runs on this machine."""
    host, pid, created = label.rsplit(" ", 2)
    try:
        process = psutil.Process(int(pid))
        return host == socket.gethostname() and f"{process.create_time():.2f}" == created
    except psutil.NoSuchProcess:
        return False
