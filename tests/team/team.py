"""A team's Prefect: a server on PostgreSQL, and three machines with a worker each, on one shared file system."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from hosts import HANG, PASSWORD, Host
from local_postgres import local_postgres
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from tiny_experiment import leave_out_fine_tuning, write_tiny_experiment
from watching import lines, wait_for

from deployments.deployed import ON_DEMAND
from deployments.work_pool import POOL
from flows.server.server import api_url, free_port, wait_until_healthy
from tasks.process.process import started
from tasks.ui.labels import WORKER_LABEL
from titanflow.runs.checkpoints import newest_step

NAMES = ("gpu1", "gpu2", "gpu3")
ALONE = "alone"
"""The run in whose folder locks count for one machine alone, as on NFS with ``nolock``."""
SERVER_LOG = "server.log"
# By default a query that takes ten seconds fails, as one does on a machine that has too much to do.
PATIENT = dict.fromkeys(("PREFECT_SERVER_DATABASE_TIMEOUT", "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT"), "300")


class Team:
    """The machines, and what the server says; files lie below ``folder``."""

    def __init__(self, folder: Path, url: str, client: SyncPrefectClient) -> None:
        self.folder, self.url, self._client = folder, url, client
        self.configs = leave_out_fine_tuning(write_tiny_experiment(folder / "tiny"))
        self.runs = folder / "tiny" / "runs" / "tiny"
        lock = self.runs / ALONE / ".lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        self.hosts = {name: Host(name, folder, url, private=(lock,)) for name in NAMES}

    def submit(self, run: str, steps: int, **parameters: Any) -> UUID:
        chosen = {"experiment": "tiny", "configs": str(self.configs), "run": run, "pretrain_steps": steps, **parameters}
        deployment = self._client.read_deployment_by_name(ON_DEMAND)
        return self._client.create_flow_run_from_deployment(deployment.id, parameters=chosen).id

    def flow_run(self, run: UUID) -> FlowRun:
        return self._client.read_flow_run(run)

    def states(self, run: UUID) -> list[State]:
        """All that the run has had, oldest first."""
        return sorted(self._client.read_flow_run_states(run), key=lambda state: state.timestamp)

    def set_state(self, run: UUID, state: State) -> None:
        """What the UI's buttons do."""
        self._client.set_flow_run_state(run, state)

    def tasks(self, run: UUID) -> list[TaskRun]:
        return self._client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))

    def log(self, run: UUID) -> str:
        of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
        return "\n".join(entry.message for entry in self._client.read_logs(of_run, limit=200, sort="TIMESTAMP_ASC"))

    def host_of(self, run: UUID) -> Host:
        """The machine whose worker has the run."""
        return self.hosts[str(self.flow_run(run).labels[WORKER_LABEL]).rpartition("-")[0]]

    def ends(self, run: UUID, state: str) -> None:
        """Waits for the run's end, and its right state."""
        wait_for(lambda: self.flow_run(run).state.is_final(), "a run's end", HANG)
        ended = self.flow_run(run).state
        assert ended.name == state, f"{ended.name}: {ended.message}\n{self.log(run)}"

    def trains(self, run: UUID, steps: int = 3) -> None:
        """Waits until so many steps more are done."""
        folder = self.runs / self.flow_run(run).parameters["run"]
        goal = step(folder) + steps

        def is_there() -> bool:
            state = self.flow_run(run).state
            assert not state.is_final(), f"{state.name}: {state.message}"
            return step(folder) >= goal

        wait_for(is_there, f"step {goal} in {folder}", HANG)

    def processes(self, run: str) -> list[psutil.Process]:
        """All that work on a run, on any machine: those with its folder in their command line."""
        folder = f"{self.runs / run}/"
        living = [process for host in self.hosts.values() for process in host.processes()]
        return [process for process in living if folder in " ".join(process.cmdline())]

    def saved(self, run: str) -> int:
        """The newest step that is kept of its training."""
        return newest_step(self.runs / run / "pretrain") or 0

    def logs(self) -> str:
        """All that the server and the machines said."""
        said = [(self.folder / SERVER_LOG).read_text(errors="replace"), *(host.logs() for host in self.hosts.values())]
        return "\n".join(said)


@contextlib.contextmanager
def a_team(folder: Path, client_of: Any) -> Iterator[Team]:
    """The server and its machines, for as long as the block lasts; ``client_of`` makes a client for an address."""
    home = folder / "server"
    home.mkdir()
    url = api_url(port := free_port())
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = folder / SERVER_LOG
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(local_postgres())
        env = {"PREFECT_API_DATABASE_CONNECTION_URL": database, "HOME": str(home)}
        env |= {"PREFECT_SERVER_API_AUTH_STRING": PASSWORD, "PREFECT_SERVER_ANALYTICS_ENABLED": "0"} | PATIENT
        server = stack.enter_context(started(command, log, env))
        wait_until_healthy(server, url, log, HANG)
        team = Team(folder, url, stack.enter_context(client_of(url)))
        for host in team.hosts.values():
            stack.callback(host.stop)
            # The first deploys; the others only work.
            host.start(*(["--pool", POOL] if host.name != NAMES[0] else []))
        yield team


def step(folder: Path) -> int:
    """The newest step in the metrics of a run's training."""
    found = [line for line in lines(folder / "pretrain" / "metrics.jsonl") if line.endswith("}")]
    return max((json.loads(line)["step"] for line in found), default=0)


def losses(folder: Path) -> Counter[int]:
    """How often each step of a run's training is in its metrics."""
    records = [json.loads(line) for line in lines(folder / "pretrain" / "metrics.jsonl")]
    return Counter(record["step"] for record in records if "loss" in record)
