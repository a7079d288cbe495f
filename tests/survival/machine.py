"""A served machine that can lose its power: server, worker and runs, found by looking at processes alone."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from watching import alive, lines, wait_for

from deployments.flow_runs.lost_runs import FLOW_RUN_ID
from flows.server.server import api_url, free_port, healthy

STARTUP_SECONDS = 600


class Machine:
    """One ``titanflow serve`` on a database of its own, and the run folders below ``runs``.

    ``env`` is its environment, in which nothing is said of another server.
    """

    def __init__(self, home: Path, runs: Path, env: Mapping[str, str] = os.environ) -> None:
        self.home, self.runs = home, runs
        self.env = {name: value for name, value in env.items() if not name.startswith("PREFECT_")}
        self.port = free_port()
        self.url = api_url(self.port)
        self.output = home / "output"

    def start(self, *options: str) -> None:
        """Starts the machine; returns when it takes runs."""
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "titanflow.cli.main", "serve", "--port", str(self.port), *options],
                env={**self.env, "PREFECT_HOME": str(self.home), "OMP_NUM_THREADS": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(
            lambda: self.process.poll() is not None or "^C" in self.output.read_text(), "the server", STARTUP_SECONDS
        )
        assert self.process.poll() is None, self.output.read_text()

    def stop(self) -> None:
        """Stops it as an init system does."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(120)

    def lose_power(self) -> None:
        """Ends everything at once."""
        everything = [self.process.pid, *(process.pid for process in self.family())]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in everything:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
        self.process.wait()

    def family(self) -> list[psutil.Process]:
        """What runs on the machine beside ``serve`` itself."""
        return [child for child in psutil.Process(self.process.pid).children(recursive=True) if alive(child.pid)]

    def service(self, words: str) -> psutil.Process:
        """The process of ``prefect server start`` or ``prefect worker start``."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if words in " ".join(child.cmdline()) and alive(child.pid))

    def flow(self, flow_run: UUID) -> psutil.Process:
        """The process of a flow run: the one that has started the stage."""
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
                if process.environ().get(FLOW_RUN_ID) == str(flow_run) and "prefect" in command:
                    found = process
            except psutil.Error:
                continue
        return found

    def stage_processes(self, run: str, stage: str) -> list[psutil.Process]:
        """A stage's processes, torchrun first: those with its run.yaml in their command line."""
        wanted = str(self.runs / run / stage / "run.yaml")
        found = []
        for process in psutil.process_iter():
            try:
                command = process.cmdline()
            except psutil.Error:
                continue
            if wanted in command and "-m" in command[1:3] and alive(process.pid):
                found.append(process)
        return sorted(found, key=lambda process: "torch.distributed.run" not in process.cmdline())

    def processes(self, run: str) -> list[psutil.Process]:
        """All processes that work on a run."""
        folder = str(self.runs / run)
        found = []
        for process in psutil.process_iter():
            try:
                if any(folder in part for part in process.cmdline()) and alive(process.pid):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    # What the server says

    def submit(self, parameters: dict) -> UUID:
        """Submits a run to the deployment on-demand."""
        with self._client() as client:
            deployment = client.read_deployment_by_name("pretrain-sft/on-demand")
            return client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id

    def state(self, flow_run: UUID):
        """A flow run's present state; None while the server is away."""
        try:
            with self._client() as client:
                return client.read_flow_run(flow_run).state
        except Exception:
            return None

    def states(self, flow_run: UUID) -> list:
        """All states that a flow run has had, oldest first; none while the server is away."""
        try:
            with self._client() as client:
                return sorted(client.read_flow_run_states(flow_run), key=lambda state: state.timestamp)
        except Exception:
            return []

    def task_states(self, flow_run: UUID) -> dict[str, str]:
        """The newest state of each task of a flow run."""
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run]))
        with self._client() as client:
            runs = sorted(client.read_task_runs(flow_run_filter=of_run), key=lambda run: run.created)
            return {run.name: run.state_name for run in runs}

    def set_state(self, flow_run: UUID, state) -> None:
        """What the UI's buttons do."""
        with self._client() as client:
            client.set_flow_run_state(flow_run, state)

    def nightly(self):
        """The deployment of the nights that are served without a word."""
        with self._client() as client:
            return client.read_deployment_by_name("pretrain-sft/nightly-stdlib_nightly")

    def edit_nightly(self, cron: str, active: bool, parameters: dict) -> None:
        """What the UI's forms of the deployment and of its schedule do."""
        deployment = self.nightly()
        with self._client() as client:
            schedule = CronSchedule(cron=cron, timezone="UTC")
            client.update_deployment_schedule(deployment.id, deployment.schedules[0].id, active, schedule)
            client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))

    def resume(self, flow_run: UUID) -> None:
        """What the UI's button Resume does."""
        with self._client() as client:
            client.resume_flow_run(flow_run)

    def delete(self, flow_run: UUID) -> None:
        """What the UI's button Delete does."""
        with self._client() as client:
            client.delete_flow_run(flow_run)

    def delete_deployment(self, name: str) -> None:
        """The same of a deployment of whole runs."""
        with self._client() as client:
            client.delete_deployment(client.read_deployment_by_name(f"pretrain-sft/{name}").id)

    def queue(self) -> list:
        """The runs that wait."""
        scheduled = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
        with self._client() as client:
            return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=scheduled))

    def flow_runs(self) -> list:
        """The newest flow runs first."""
        with self._client() as client:
            return client.read_flow_runs(limit=10, sort="START_TIME_DESC")

    def log(self, flow_run: UUID, since: datetime) -> str:
        """A flow run's log from a time on."""
        of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run]))
        with self._client() as client:
            found, more = [], True
            while more:
                more = client.read_logs(of_run, limit=200, offset=len(found), sort="TIMESTAMP_ASC")
                found += more
        return "\n".join(entry.message for entry in found if entry.timestamp > since)

    def is_up(self) -> bool:
        """Whether the server answers."""
        return healthy(self.url)

    def _client(self):
        return _Client(self.url)


class _Client:
    def __init__(self, url: str) -> None:
        self._settings = temporary_settings({PREFECT_API_URL: url})

    def __enter__(self):
        self._settings.__enter__()
        self._inner = get_client(sync_client=True)
        return self._inner.__enter__()

    def __exit__(self, *error) -> None:
        self._inner.__exit__(*error)
        self._settings.__exit__(*error)


def newest_step(folder: Path) -> int:
    """The newest step in a stage's metrics."""
    found = lines(folder / "metrics.jsonl")
    return max((json.loads(line)["step"] for line in found[-3:] if line.endswith("}")), default=0)


def losses(folder: Path) -> list[tuple[int, float]]:
    """Each logged step with its loss, in the file's order: none missing, none twice."""
    records = [json.loads(line) for line in lines(folder / "metrics.jsonl")]
    return [(record["step"], record["loss"]) for record in records if "loss" in record]
