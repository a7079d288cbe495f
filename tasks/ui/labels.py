"""The names of stages' task runs, and the labels of flow runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from titanflow.config.keys.experiment import Retries
from titanflow.runs.contract import StageRun


def task_run_name(parameters: dict[str, Any]) -> str:
    """The stage and what it works on: ``pretrain llama3``; Prefect calls it with the task's parameters."""
    return stage_name(parameters["plan"].run)


def stage_name(run: StageRun) -> str:
    """A stage in a few words, which begin each line of its log."""
    config = run.config
    match run.kind:
        case "prepare":
            detail = _count(config.get("datasets"), "dataset")
        case "evaluate":
            detail = _count(config.get("tasks"), "task")
        case "publish":
            name = "push_to_hub" if run.stage == "publish" else run.stage
            return f"{name} {config['repo_id']}" if config.get("target") == "hub" else name
        case _:
            lora = (config.get("lora") or {}).get("rank")
            detail = (config.get("model") or {}).get("name", "") + (f" LoRA {lora}" if lora else "")
    return f"{run.stage} {detail}".rstrip()


def _count(things: Any, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}" if things else ""


LOST_LABEL, DELAY_LABEL = "titanflow.retries.lost", "titanflow.retries.delay"
WORKER_LABEL = "prefect.worker.name"
"""The worker that started a run; by Prefect, which ends a cancelled run by it."""
PROCESS_LABEL = "titanflow.process"
"""A run's process: host, id, start time."""
SIGN_LABEL = "titanflow.sign-of-life"
"""The file in which a run shows other machines that it lives."""
WHO_LABEL = "titanflow."
"""Prefix of ``work_group`` and ``user_name``, if a run has them."""


def label_run(retries: Retries, who: Mapping[str, str], sign: Path) -> None:
    """Writes a flow run's labels; if the server is unreachable, the run goes on without them."""
    own = f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.2f}"
    labels: dict[str, Any] = {LOST_LABEL: retries.lost, DELAY_LABEL: retries.delay, PROCESS_LABEL: own}
    labels[SIGN_LABEL] = str(sign)
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
