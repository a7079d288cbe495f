"""A stand-in for Prefect's server: the part of its client that is used, on flow runs that are held here."""

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from deployments.work_pool import worker_name

HERE = {"prefect.worker.name": f"{socket.gethostname()}-77", "prefect.worker.type": "process"}
"""The labels of a run that a worker of this machine took."""


class StandInServer:
    """``history`` has the states that a run was given, ``past`` those that it had before."""

    def __init__(self):
        self.runs, self.history, self.past = {}, {}, {}
        self.workers = {worker_name(): "ONLINE"}
        self.ahead = timedelta()

    def hello(self):
        """With the server's time, in whole seconds."""
        return SimpleNamespace(headers={"date": format_datetime(datetime.now(UTC) + self.ahead)})

    def read_workers_for_work_pool(self, pool):
        return [SimpleNamespace(name=name, status=status) for name, status in self.workers.items()]

    def add(self, state, labels=HERE, deployment=True, pool="titanflow", past=(), **more):
        run = FlowRun(
            id=uuid4(),
            flow_id=uuid4(),
            name="tiny",
            state=state,
            labels=labels,
            deployment_id=uuid4() if deployment else None,
            work_pool_name=pool,
            **more,
        )
        self.runs[run.id], self.history[run.id], self.past[run.id] = run, [], past
        return run.id

    def read_flow_run(self, run):
        if run not in self.runs:
            raise ObjectNotFound(Exception("404"))
        return self.runs[run]

    def read_flow_run_states(self, run):
        states = [*self.past.get(run, []), self.runs[run].state]
        return sorted(states, key=lambda state: state.timestamp, reverse=True)

    def read_flow_runs(self, flow_run_filter, sort):
        found = [run for run in self.runs.values() if run.state.type in flow_run_filter.state.type.any_]
        due = flow_run_filter.next_scheduled_start_time
        return [run for run in found if not due or run.state.state_details.scheduled_time <= due.before_]

    def update_flow_run(self, run, name):
        self.runs[run].name = name

    def set_flow_run_state(self, run, state, force=False):
        if run not in self.runs:
            raise ObjectNotFound(Exception("404"))
        self.runs[run].state = state
        self.history[run].append((state.name, state.message))
