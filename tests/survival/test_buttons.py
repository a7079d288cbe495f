"""What a person does in Prefect's UI, and a stop of ``serve``, while a real training runs; then what came of it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cells import CELLS, Cell
from machine import Machine, newest_step
from prefect.states import Cancelling, Paused, Scheduled
from tiny_experiment import leave_out_fine_tuning, write_tiny_experiment
from watching import wait_for

from titanflow.runs.checkpoints import newest_step as newest_checkpoint

pytestmark = pytest.mark.survival
FOREVER = 1_000_000
PATIENCE = 180
RUNS = ("suspended", "deleted", "running", "queued", "finished", "killed", "orphan")


class Training:
    """A run of a machine whose pretraining never ends by itself."""

    def __init__(self, machine: Machine, configs: Path, name: str) -> None:
        self.machine, self.name = machine, name
        overrides = {"pretrain.checkpoint.interval": 1000, "pretrain.validation.enable": False}
        parameters = {"experiment": "tiny", "configs": str(configs), "run": name, "pretrain_steps": FOREVER}
        self.id: UUID = machine.submit({**parameters, "overrides": overrides})
        self.folder = machine.runs / name / "pretrain"

    @property
    def state(self) -> str:
        state = self.machine.state(self.id)
        return f"{state.name}: {state.message}" if state else "none"

    def trains_on(self) -> int:
        """Waits for some more steps, and returns the newest."""
        before = newest_step(self.folder)
        wait_for(lambda: newest_step(self.folder) > before + 3, f"{self.name} to train, {self.state}", PATIENCE)
        return newest_step(self.folder)

    def ends(self) -> float:
        """Waits until no process is left; returns the seconds."""
        began = datetime.now(UTC)
        wait_for(lambda: not self.machine.processes(self.name), "the processes' end", PATIENCE)
        return (datetime.now(UTC) - began).total_seconds()

    def reaches(self, state: str) -> str:
        """Waits for a state; returns its message."""
        wait_for(lambda: self.state.startswith(f"{state}: "), f"{state}, not {self.state}", PATIENCE)
        return self.state

    def saved(self) -> int:
        return newest_checkpoint(self.folder) or 0


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return leave_out_fine_tuning(write_tiny_experiment(tmp_path_factory.mktemp("buttons") / "tiny"))


@pytest.fixture(scope="module")
def machine(configs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("home"), configs.parent / "runs" / "tiny")
    machine.start()
    try:
        yield machine
    finally:
        machine.stop()
        for process in psutil_left(machine):
            process.kill()


def psutil_left(machine: Machine) -> list:
    return [process for name in RUNS for process in machine.processes(name)]


@pytest.fixture
def cell(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Cell:
    cell = Cell("pretrain", request.node.name.removeprefix("test_").replace("_", " "))
    pytestconfig.stash[CELLS].append(cell)
    return cell


def test_suspend_and_resume(machine: Machine, configs: Path, cell: Cell) -> None:
    run = Training(machine, configs, "suspended")
    step = run.trains_on()
    timeout = datetime.now(UTC) + timedelta(minutes=10)
    state = Paused(name="Suspended", pause_expiration_time=timeout, reschedule=True)
    machine.set_state(run.id, state)
    cell.seconds, cell.orphans = f"{run.ends():.0f}", str(len(machine.processes(run.name)))
    assert run.saved() >= step
    assert run.state.startswith("Suspended")
    saved = run.saved()
    machine.resume(run.id)
    assert run.trains_on() > saved
    cell.checkpoint = f"step {saved}, of {step}"
    # Twice does no more than once, and what is suspended can be cancelled.
    for _ in range(2):
        machine.set_state(run.id, state)
    run.ends()
    assert run.state.startswith("Suspended")
    machine.set_state(run.id, Cancelling())
    run.reaches("Cancelled")
    cell.state = f"Suspended, Running, Suspended, {run.state}"
    log = machine.log(run.id, since=datetime.now(UTC) - timedelta(hours=1))
    assert re.search(f"pretrain was stopped; it resumes from step {run.saved()}", log), log


def test_delete(machine: Machine, configs: Path, cell: Cell) -> None:
    run = Training(machine, configs, "deleted")
    step = run.trains_on()
    machine.delete(run.id)
    cell.seconds, cell.orphans = f"{run.ends():.0f}", str(len(machine.processes(run.name)))
    assert float(cell.seconds) < 20
    assert run.saved() >= step
    cell.checkpoint, cell.state = f"step {run.saved()}, of {step}", "deleted"
    said = "tiny/deleted .* was deleted on the server: it saves and ends"
    wait_for(lambda: re.search(said, machine.output.read_text()), "what serve says", 30)
    assert not (machine.runs / run.name / "publish").exists()


def test_stop_of_serve(machine: Machine, configs: Path, cell: Cell) -> None:
    run = Training(machine, configs, "running")
    queued = Training(machine, configs, "queued")
    edited = {**machine.nightly().parameters, "experiment": "stdlib", "pretrain_steps": 7}
    machine.edit_nightly("0 3 * * *", False, edited)
    step = run.trains_on()
    message = queued.reaches("Queued")
    assert re.search("When it came, these were at work: tiny/running", message), message
    names = {one.id: one.name for one in machine.queue()}
    assert names[queued.id].startswith("tiny/queued pretrain.steps=1000000"), names
    began = datetime.now(UTC)
    machine.stop()
    cell.seconds = f"{(datetime.now(UTC) - began).total_seconds():.0f}"
    cell.orphans = str(len(machine.processes(run.name)))
    saved = run.saved()
    assert saved >= step
    machine.start()
    why = [state.message for state in machine.states(run.id) if state.name == "Put off"]
    assert why
    assert "serve was stopped" in why[0]
    nightly = machine.nightly()
    assert (nightly.parameters, [one.active for one in nightly.schedules]) == (edited, [False])
    assert "nightly-stdlib_nightly runs stdlib at 0 3 * * * (UTC), paused." in machine.output.read_text()
    assert run.trains_on() > saved
    queued.reaches("Queued")
    cell.checkpoint, cell.cause = f"step {saved}, of {step}", why[0]
    cell.state = f"{run.state}; queued: {queued.state}"
    machine.set_state(run.id, Cancelling())
    queued.trains_on()
    machine.set_state(queued.id, Cancelling())
    queued.reaches("Cancelled")


def test_what_the_command_line_resets_is_said(machine: Machine, cell: Cell) -> None:
    machine.stop()
    machine.start("--nightly-cron", "0 4 * * *", "--experiment", "stdlib_nightly")
    said = machine.output.read_text()
    assert "nightly-stdlib_nightly: the schedule 0 3 * * * (UTC), paused → 0 4 * * * (UTC), paused, as this" in said
    assert "nightly-stdlib_nightly: the parameters {" in said
    assert machine.nightly().parameters["pretrain_steps"] == 7
    cell.state = "stays paused"


def test_retry_of_a_finished_run(machine: Machine, configs: Path, cell: Cell) -> None:
    run = machine.submit({"experiment": "tiny", "configs": str(configs), "run": "finished", "pretrain_steps": 3})
    wait_for(lambda: machine.state(run).is_completed(), "the run's end", PATIENCE)
    result = machine.runs / "finished" / "pretrain" / "result.json"
    before = result.stat()
    began = datetime.now(UTC)
    machine.set_state(run, Scheduled(name="AwaitingRetry", scheduled_time=began))
    names = ["Completed", "AwaitingRetry", "Completed"]
    wait_for(
        lambda: [one.name for one in machine.states(run) if one.name in names] == names, "its second end", PATIENCE
    )
    assert (result.stat().st_mtime_ns, result.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    cell.seconds, cell.state = f"{(datetime.now(UTC) - began).total_seconds():.0f}", "Completed again"


def test_sigkill_of_serve(machine: Machine, configs: Path, cell: Cell) -> None:
    run = Training(machine, configs, "killed")
    step = run.trains_on()
    machine.process.kill()
    cell.seconds, cell.orphans = f"{run.ends():.0f}", str(len(machine.processes(run.name)))
    saved = run.saved()
    assert saved >= step
    machine.start()
    assert run.trains_on() > saved
    (cause,) = [state.message for state in machine.states(run.id) if state.is_crashed()]
    assert "the run's process is gone without an error" in cause
    cell.checkpoint, cell.cause, cell.state = f"step {saved}, of {step}", cause, f"Crashed, then {run.state}"
    machine.set_state(run.id, Cancelling())
    run.reaches("Cancelled")


def test_delete_of_a_deployment(machine: Machine, configs: Path, cell: Cell) -> None:
    run = Training(machine, configs, "orphan")
    run.trains_on()
    machine.delete_deployment("on-demand")
    run.trains_on()
    cell.state = run.state
    machine.set_state(run.id, Cancelling())
    run.reaches("Cancelled")
    machine.stop()
    machine.start()
    assert machine.submit({"experiment": "tiny", "configs": str(configs)})
