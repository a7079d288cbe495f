"""Every event that may end a run, in every stage of one run, with real parts; then what came of it is compared.

One run, ``survivor``, meets all events in turn, each in the middle of a stage, and goes on after each. At its end its
losses are those of ``reference``, which nobody disturbed.
"""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from cells import CELLS, NOT_APPLICABLE, Cell
from events import EVENTS, STAGES, TRAININGS, Event, Scene, command_line
from machine import Machine, losses, newest_step
from tiny_experiment import write_tiny_experiment
from watching import alive, wait_for

from titanflow.runs.checkpoints import newest_step as newest_checkpoint

pytestmark = pytest.mark.survival

DEADLINE = 120
"""Seconds after which a state has to be right."""
STEPS = 1000


class Survivor:
    """The run that meets all events."""

    def __init__(self, machine: Machine, configs: str) -> None:
        self.machine, self.name = machine, "survivor"
        overrides = {"retries.lost": 50, "retries.delay": 1, "pretrain.validation.enable": False}
        for stage in TRAININGS:
            overrides[f"{stage}.training.steps"] = STEPS
            overrides[f"{stage}.checkpoint.interval"] = 10
            overrides[f"{stage}.comm.train_timeout_seconds"] = 10
        self.parameters = {
            "experiment": "tiny",
            "configs": configs,
            "run": self.name,
            "nproc_per_node": 2,
            "overrides": {**overrides, "evaluate.launcher.nproc_per_node": 1},
        }
        self.flow_run: UUID | None = None

    def reach(self, stage: str, event: Event) -> Scene:
        """Brings the run into the middle of a stage, submitting it where it isn't going."""
        state = self.flow_run and self.machine.state(self.flow_run)
        started = None
        if event.from_command_line:
            known = {run.id for run in self.machine.flow_runs()}
            started = command_line(self.machine, self.parameters)
            self.flow_run = wait_for(
                lambda: next((run.id for run in self.machine.flow_runs() if run.id not in known), None), "its run", 60
            )
        elif state is None or state.is_final():
            self.flow_run = self.machine.submit(self.parameters)
        scene = Scene(self.machine, self.name, stage, self.flow_run, started)
        folder = self.machine.runs / self.name / stage
        before = newest_step(folder)

        def is_in_the_middle() -> bool:
            state = self.machine.state(self.flow_run)
            assert not state.is_final(), f"{state.name}: {state.message}"
            ranks = scene.ranks()
            if stage in TRAININGS:
                step, saved = newest_step(folder), newest_checkpoint(folder)
                return len(ranks) == 2 and saved is not None and step > max(before, saved) + 2
            return bool(ranks)

        wait_for(is_in_the_middle, f"the middle of {stage}", 120)
        if stage not in TRAININGS:
            scene.held = scene.ranks()
            for process in scene.held:
                process.suspend()
        return scene


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survivor]:
    """The run on a machine of its own."""
    root = tmp_path_factory.mktemp("survival")
    configs = write_tiny_experiment(root / "tiny")
    machine = Machine(root, root / "tiny" / "runs" / "tiny")
    machine.start()
    try:
        yield Survivor(machine, str(configs))
    finally:
        machine.stop()
        for process in machine.processes("survivor"):
            process.kill()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
@pytest.mark.parametrize("stage", STAGES)
def test_event(stage: str, event: Event, survivor: Survivor, pytestconfig: pytest.Config) -> None:
    cell = Cell(stage, event.name)
    pytestconfig.stash[CELLS].append(cell)
    if stage not in event.stages:
        cell.state = f"{stage} has none"
        pytest.skip(cell.state)
    scene = survivor.reach(stage, event)
    folder = survivor.machine.runs / survivor.name / stage
    family = [*survivor.machine.processes(survivor.name)]
    step, saved = newest_step(folder), newest_checkpoint(folder) or 0
    began = datetime.now(UTC)
    event.apply(scene)
    scene.release()
    state, at, message = settled(scene, event, began)
    cell.state, cell.seconds = state, f"{(at - began).total_seconds():.0f}"
    if event.outcome != "goes on":
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and any(alive(process.pid) for process in family):
            time.sleep(0.1)
        cell.orphans = str(sum(alive(process.pid) for process in family))
    elif stage in TRAININGS:
        assert all(alive(process.pid) for process in family)
    kept = newest_checkpoint(folder) or 0
    if stage in TRAININGS:
        cell.checkpoint = f"step {kept}, of {step}" if event.graceful else f"step {kept}, had {saved}"
    found = re.search(event.cause, message)
    cell.cause = (found[0] if found else f"NOT FOUND in {message[:300]!r}") if event.cause else NOT_APPLICABLE
    assert cell.orphans in ("0", NOT_APPLICABLE)
    assert kept >= (step if event.graceful and stage in TRAININGS else saved)
    assert found, message
    assert state == event.outcome
    assert (at - began).total_seconds() <= DEADLINE


def settled(scene: Scene, event: Event, began: datetime) -> tuple[str, datetime, str]:
    """What became of the run: the outcome's name, since when, and the message that says why."""
    machine, run = scene.machine, scene.flow_run
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if event.outcome == "stage retried":
            log = machine.log(run, since=began)
            if "(attempt " in log:
                return "stage retried", datetime.now(UTC), log
        states = [state for state in machine.states(run) if state.timestamp > began]
        if event.outcome == "started again":
            crashed = next((state for state in states if state.is_crashed()), None)
            again = next((state for state in states if state.is_running()), None)
            if crashed and again:
                return "started again", crashed.timestamp, "\n".join(state.message or "" for state in states)
        elif event.outcome == "goes on":
            state = machine.state(run)
            if state is not None and not states:
                return "goes on", datetime.now(UTC), ""
        if states and states[-1].is_final() and event.outcome != "started again":
            return states[-1].name, states[-1].timestamp, states[-1].message or ""
    state = machine.state(run)
    return (state.name if state else "no server"), datetime.now(UTC), (state.message if state else "") or ""


@pytest.mark.parametrize("stage", TRAININGS)
def test_nan_loss(stage: str, survivor: Survivor, pytestconfig: pytest.Config) -> None:
    cell = Cell(stage, "NaN loss")
    pytestconfig.stash[CELLS].append(cell)
    machine, name = survivor.machine, f"nan-{stage}"
    overrides = {"pretrain.training.steps": 4, **survivor.parameters["overrides"]}
    overrides |= {"pretrain.training.steps": 4} if stage == "sft" else {}
    overrides |= {
        f"{stage}.optimizer.lr": 1e30,
        f"{stage}.checkpoint.interval": 1,
        f"{stage}.checkpoint.keep_latest_k": 5,
    }
    began = datetime.now(UTC)
    run = machine.submit({**survivor.parameters, "run": name, "overrides": overrides})
    wait_for(lambda: (state := machine.state(run)) and state.is_final(), "its end", DEADLINE)
    state = machine.state(run)
    cell.state, cell.seconds = state.name, f"{(state.timestamp - began).total_seconds():.0f} from submission"
    cell.orphans = str(len(machine.processes(name)))
    kept = newest_checkpoint(machine.runs / name / stage)
    cell.checkpoint = f"step {kept}, the last whose loss was a number"
    cell.cause = (re.search("diverged", state.message or "") or [f"NOT FOUND in {state.message}"])[0]
    assert (state.name, cell.orphans, cell.cause) == ("Failed", "0", "diverged")


def test_the_run_that_met_them_all_is_the_one_that_met_none(survivor: Survivor, pytestconfig: pytest.Config) -> None:
    machine = survivor.machine
    if machine.state(survivor.flow_run).is_final() and not machine.state(survivor.flow_run).is_completed():
        survivor.flow_run = machine.submit(survivor.parameters)
    other = machine.home / "elsewhere"
    reference = {**survivor.parameters, "run": "reference"}
    reference["overrides"] = {**reference["overrides"], "workspace": str(other)}
    runs = [survivor.flow_run, machine.submit(reference)]
    for run in runs:
        wait_for(lambda run=run: machine.state(run).is_final(), "its end", 600)
        assert machine.state(run).name == "Completed", machine.state(run).message
    equal = {
        stage: losses(machine.runs / survivor.name / stage) == losses(other / "tiny/reference" / stage)
        for stage in TRAININGS
    }
    for cell in pytestconfig.stash[CELLS]:
        if cell.stage in equal and cell.event != "NaN loss":
            cell.losses = "equal" if equal[cell.stage] else "DIFFERENT"
    assert equal == dict.fromkeys(TRAININGS, True)
