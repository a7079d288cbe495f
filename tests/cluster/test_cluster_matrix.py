"""Every event that may befall a job of a cluster, one after the other, in one run, with real parts.

The run is served by a real Prefect server and worker beside a real Slurm. It meets all events in the middle of its
pretraining, on two nodes, and goes on after each. What it computed is compared with a run of two processes of one
machine, which nobody disturbed. Seconds are noted and never judged.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cluster_events import EVENTS, Event
from cluster_table import RECORD, Row
from local_slurm import NODES, LocalSlurm
from scene import Doubles, Scene, living_jobs, orphans, wait_none
from tiny_experiment import ROOT, write_tiny_experiment
from watching import lines, wait_for

sys.path.append(str(Path(__file__).parents[1] / "survival"))
from events import command_line
from machine import Machine, losses, newest_step
from prefect.states import Cancelling

from titanflow.runs.checkpoints import newest_step as newest_checkpoint

pytestmark = [pytest.mark.cluster_matrix, pytest.mark.slow]

DISK_MB = 200
"""The disk that the workspace lies on, so that it can be filled."""
DEADLINE = 300
"""Seconds after which a hang is one."""
STEPS = 100_000
"""More than all events take: nothing ends by itself."""


class Survivor:
    """The run that meets all events."""

    def __init__(self, slurm: LocalSlurm, machine: Machine, configs: Path) -> None:
        self.slurm, self.machine, self.name = slurm, machine, "survivor"
        self.folder = machine.runs / self.name / "pretrain"
        self.configs = configs
        self.flow_run: UUID | None = None
        self.command_line: subprocess.Popen | None = None
        self.settings: dict[str, object] = {}

    def parameters(self) -> dict:
        return {
            "experiment": "tiny",
            "configs": str(self.configs),
            "run": self.name,
            # Two processes, on whatever number of nodes.
            "nproc_per_node": 1 if self.settings.get("launcher.nnodes", 2) == 2 else 2,
            "overrides": {
                **{"launcher.kind": "slurm", "launcher.nnodes": 2, "launcher.omp_num_threads": 1},
                **{"retries.lost": 50, "retries.delay": 1, "pretrain.validation.enable": False},
                **{"pretrain.training.steps": STEPS, "pretrain.checkpoint.interval": 10},
                **{"pretrain.comm.train_timeout_seconds": 600},
                **self.settings,
            },
        }

    def reach(self, event: Event) -> Scene:
        """Brings the run to where the event is due, in a flow run of its own where it needs one."""
        if event.settings != self.settings or event.is_new or event.from_command_line:
            self.cancel()
            self.settings = event.settings
        before = newest_step(self.folder)
        if event.from_command_line:
            known = {run.id for run in self.machine.flow_runs()}
            self.command_line = command_line(self.machine, self.parameters())
            self.flow_run = wait_for(
                lambda: next((run.id for run in self.machine.flow_runs() if run.id not in known), None), "its run"
            )
        elif self.is_over():
            self.flow_run = self.machine.submit(self.parameters())
        assert self.flow_run is not None
        scene = Scene(self.slurm, self.machine, self.folder, self.flow_run, self.command_line)
        if not event.is_new:
            wait_for(lambda: self.is_in_the_middle(scene, before), "the middle of the stage", DEADLINE)
        return scene

    def is_over(self) -> bool:
        state = self.flow_run and self.machine.state(self.flow_run)
        return not state or state.is_final()

    def is_in_the_middle(self, scene: Scene, before: int) -> bool:
        state = self.machine.state(scene.flow_run)
        assert state is None or not state.is_final(), f"{state.name}: {state.message}"
        step, saved = newest_step(self.folder), newest_checkpoint(self.folder)
        trains = len(scene.role("rank")) == 2 and saved is not None and step > max(before, saved) + 2
        return trains and self.follows(scene)

    def follows(self, scene: Scene) -> bool:
        """Whether the flow has its job in hand: one that was started again takes seconds to come to it."""
        began = [state.timestamp for state in self.machine.states(scene.flow_run) if state.is_running()]
        said = self.machine.log(scene.flow_run, since=began[-1]) if began else ""
        return f"job {scene.job()['id']} of slurm" in said

    def cancel(self) -> None:
        """Ends the run, if it goes."""
        if not self.is_over():
            assert self.flow_run is not None
            self.machine.set_state(self.flow_run, Cancelling())
            wait_for(self.is_over, "the end of the run", DEADLINE)


@pytest.fixture(scope="module")
def survivor(slurm: LocalSlurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survivor]:
    """The run, on a disk of its own, which the nodes share."""
    root = tmp_path_factory.mktemp("matrix")
    configs = write_tiny_experiment(root)
    disk = root / "runs"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", disk], check=True)
    # A node has the mounts that were there when it was started.
    for node in NODES:
        slurm.power_off(node)
        slurm.power_on(node)
    slurm.resume_drained()
    slurm.wait_until(lambda: set(slurm.states().values()) == {"idle"}, "idle nodes", 60)
    env = {**slurm.env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with slurm.entered():
        machine = Machine(root / "home", disk / "tiny", env)
        machine.home.mkdir()
        machine.start()
        try:
            yield Survivor(slurm, machine, configs)
        finally:
            machine.stop()
            for process in machine.processes("survivor"):
                process.kill()
            for node in NODES:
                slurm.power_off(node)
            subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_event(event: Event, survivor: Survivor, pytestconfig: pytest.Config) -> None:
    row = Row(event.name)
    pytestconfig.stash[RECORD].rows.append(row)
    slurm = survivor.slurm
    with Doubles(slurm) as doubles:
        scene = survivor.reach(event)
        step, saved = newest_step(survivor.folder), newest_checkpoint(survivor.folder) or 0
        began, job = datetime.now(UTC), scene.job()
        try:
            event.apply(scene)
            row.state, at, said = settled(scene, event, began, job["id"], step)
            row.seconds = f"{(at - began).total_seconds():.0f}"
            found = re.search(event.cause, said)
            row.cause = told(said, found[0]) if event.cause and found else row.cause
            row.orphans = str(len(orphans(slurm)))
        finally:
            event.mend(scene)
        assert row.state == event.outcome, said
        is_over = event.outcome in ("Cancelled", "Crashed", "Failed")
        if is_over:
            left = wait_none(lambda: [str(process) for process in slurm.processes()])
        else:
            wait_for(lambda: trains_again(scene, job["id"], step, event), "a step after the event", DEADLINE)
            row.trains = f"{(datetime.now(UTC) - began).total_seconds():.0f}"
            left = wait_none(lambda: orphans(slurm))
    row.orphans = str(len(left)) if row.orphans in ("0", str(len(left))) else f"{row.orphans}, then {len(left)}"
    living = living_jobs(slurm, scene.job()["name"])
    row.jobs_left = str(len(living) - (not is_over))
    row.doubled = str(len(set(doubles.found)))
    kept = newest_checkpoint(survivor.folder) or 0
    if not event.is_new:
        row.checkpoint = f"step {kept if is_over else saved}, was at {step}"
    assert found, said
    assert (left, row.jobs_left, doubles.found) == ([], "0", [])
    assert kept >= (step if event.graceful and is_over else saved)


def told(said: str, cause: str) -> str:
    """The line of a log or message that names the cause, without the paths."""
    line = next((line for line in said.splitlines() if cause in line), cause)
    return re.sub(r"\. (Its log|The end of).*", "", line)[:200]


def trains_again(scene: Scene, job: str, step: int, event: Event) -> bool:
    state = scene.machine.state(scene.flow_run)
    assert state is None or not state.is_final(), f"{state.name}: {state.message}"
    if event.outcome == "goes on" or (event.cause == "SIGKILL" and event.outcome == "started again"):
        return newest_step(scene.folder) > step
    is_another = scene.job()["id"] != job
    began = [line for line in lines(scene.folder / "metrics.jsonl")[-1:] if line.endswith("}")]
    return is_another and bool(began) and len(scene.role("rank")) == 2 and newest_step(scene.folder) > step


def trained_on(scene: Scene, job: str, step: int) -> bool:
    """Whether the same job has done some more steps."""
    return newest_step(scene.folder) > step + 10 and scene.job()["id"] == job


def settled(scene: Scene, event: Event, began: datetime, job: str, step: int) -> tuple[str, datetime, str]:
    """What became of the run: the outcome's name, since when, and what was said of it."""
    machine, run = scene.machine, scene.flow_run
    deadline, states, log = time.monotonic() + DEADLINE, [], ""
    while time.monotonic() < deadline:
        time.sleep(0.2)
        states = [state for state in machine.states(run) if state.timestamp > began]
        said = "\n".join(state.message or "" for state in states)
        if event.outcome in ("new job", "stage retried"):
            log = machine.log(run, since=began)
            if re.search(event.cause, log):
                return event.outcome, datetime.now(UTC), log
        elif event.outcome == "started again":
            crashed = next((state for state in states if state.is_crashed()), None)
            if crashed and any(state.is_running() for state in states):
                return event.outcome, crashed.timestamp, said
        elif event.outcome == "goes on" and trained_on(scene, job, step) and not states:
            return event.outcome, datetime.now(UTC), ""
        if states and states[-1].is_final() and event.outcome != "started again":
            return states[-1].name, states[-1].timestamp, said
    return ", ".join(state.name for state in states), datetime.now(UTC), log


def test_what_was_computed_is_what_an_undisturbed_run_computes(survivor: Survivor, pytestconfig: pytest.Config) -> None:
    survivor.cancel()
    mine = losses(survivor.folder)
    assert [step for step, _ in mine] == list(range(1, len(mine) + 1))
    survivor.name, survivor.settings = "reference", {"launcher.kind": "local", "launcher.nnodes": 1}
    survivor.flow_run = survivor.machine.submit(survivor.parameters())
    other = survivor.machine.runs / "reference" / "pretrain"
    wait_for(lambda: newest_step(other) >= len(mine), "the undisturbed run", 1200)
    survivor.cancel()
    equal = mine == losses(other)[: len(mine)]
    for row in pytestconfig.stash[RECORD].rows:
        row.losses = f"equal ({len(mine)} steps)" if equal else "DIFFERENT"
    assert equal
