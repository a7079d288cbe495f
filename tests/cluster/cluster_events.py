"""What may happen to a run in a cluster, and what has to come of it."""

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from local_slurm import NODES
from prefect.states import Cancelling
from scene import Scene, orphans
from watching import alive, wait_for

FILLER = "filler"
Outcome = Literal["Cancelled", "Crashed", "Failed", "started again", "stage retried", "new job", "goes on"]


def nothing(scene: Scene) -> None:
    """Nothing has to be put right."""


@dataclass(frozen=True)
class Event:
    """``cause`` is a pattern that the flow's log or state has; ``graceful`` means that the present step is saved.

    ``settings`` are those of a run of its own, which ``is_new`` before anything is trained; ``mend`` puts the cluster
    right again once the run has taken the event.
    """

    name: str
    apply: Callable[[Scene], None]
    outcome: Outcome
    cause: str = ""
    graceful: bool = False
    mend: Callable[[Scene], None] = nothing
    settings: dict[str, Any] = field(default_factory=dict)
    is_new: bool = False
    from_command_line: bool = False


def cancel(scene: Scene) -> None:
    """As the UI's button does."""
    scene.machine.set_state(scene.flow_run, Cancelling())


def interrupt(scene: Scene) -> None:
    """As a terminal does: to all of its foreground processes."""
    assert scene.command_line is not None
    os.killpg(scene.command_line.pid, signal.SIGINT)


def kill_flow(scene: Scene) -> None:
    scene.machine.flow(scene.flow_run).kill()


def kill_worker(scene: Scene) -> None:
    scene.machine.service("worker start").kill()


def kill(role: str, node: str) -> Callable[[Scene], None]:
    """SIGKILL to a process of the stage."""
    return lambda scene: scene.role(role, node)[0].kill()


def restart_slurmd(scene: Scene) -> None:
    """As an init system does."""
    scene.slurm.kill_slurmd("node2")
    scene.slurm.start_slurmd("node2")


def strand(scene: Scene) -> None:
    """A job's node is given up while its processes live on: they leave once the next job, on another, has begun."""
    (node,) = {node for node in NODES if scene.role("rank", node)}
    old = scene.job()["id"]
    scene.slurm.kill_slurmd(node)
    wait_for(lambda: scene.job()["id"] not in ("", old), "the next job", 240)
    wait_for(lambda: not orphans(scene.slurm), "the end of the processes of the one before", 240)


def start_all_slurmd(scene: Scene) -> None:
    for node in NODES:
        if not any(process.name() == "slurmd" for process in scene.slurm.of_node(node)):
            scene.slurm.start_slurmd(node)


def power_cycle(node: str) -> Callable[[Scene], None]:
    def mend(scene: Scene) -> None:
        scene.slurm.power_off(node)
        scene.slurm.power_on(node)

    return mend


def preempt(scene: Scene) -> None:
    """A job of the partition that goes first takes the nodes, and gives them back."""
    asked = ("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    scene.slurm.output("sbatch", *asked)


def wait_for_the_limit(scene: Scene) -> None:
    """The ranks stand still until they are told."""
    with scene.held() as ranks:
        wait_for(lambda: all(was_told(process.pid) for process in ranks), "the limit's signal", 240)


def was_told(pid: int) -> bool:
    """Whether a stopped process has a SIGTERM waiting, or is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    pending = [int(line.split()[1], 16) for line in text.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in pending) or not alive(pid)


def restart_controller(scene: Scene) -> None:
    scene.slurm.stop_controller()
    scene.slurm.start_controller()


def controller_away(scene: Scene) -> None:
    """Until the flow has noticed."""
    began = datetime.now(UTC)
    with scene.held():
        scene.slurm.stop_controller()
        _until_said(scene, began, "the job goes on, and is asked for again")
        scene.slurm.start_controller()


def controller_hangs(scene: Scene) -> None:
    """Its port takes requests, and answers none, until the flow's command has given up."""
    began = datetime.now(UTC)
    with scene.held():
        controller = scene.slurm.controller()
        controller.suspend()
        try:
            _until_said(scene, began, "the job goes on, and is asked for again")
        finally:
            controller.resume()


def _until_said(scene: Scene, since: datetime, text: str) -> None:
    wait_for(lambda: text in scene.machine.log(scene.flow_run, since), f"{text!r} in the log", 240)


def fill_disk(scene: Scene) -> None:
    """The workspace's disk has no byte left."""
    with contextlib.suppress(OSError), _filler(scene).open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def make_room(scene: Scene) -> None:
    _filler(scene).unlink()


def _filler(scene: Scene) -> Path:
    return scene.machine.runs.parent / FILLER


def cancel_by_slurm(scene: Scene) -> None:
    """As somebody else on the cluster may."""
    scene.slurm.output("scancel", scene.job()["id"])


def take_all_nodes(scene: Scene) -> None:
    """Another job has the nodes; the run is cancelled while its job waits."""
    began = datetime.now(UTC)
    asked = ("--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 600")
    scene.other_jobs.append(scene.slurm.output("sbatch", *asked))
    scene.wait_state(scene.other_jobs[0], "RUNNING")
    _until_said(scene, began, "waits: ")
    cancel(scene)


def give_nodes_back(scene: Scene) -> None:
    scene.slurm.output("scancel", scene.other_jobs[0])


LOST_NODE = "lost a node"
EVENTS = (
    Event("SIGKILL of srun", kill("srun", "node1"), "stage retried", "SIGKILL"),
    Event("SIGKILL of the job's script", kill("shell", "node1"), "stage retried", "SIGKILL"),
    Event("slurmd killed, started again", restart_slurmd, "goes on"),
    Event(
        "slurmd killed, its node restarted",
        lambda scene: scene.slurm.kill_slurmd("node1"),
        "new job",
        LOST_NODE,
        mend=power_cycle("node1"),
    ),
    Event(
        "node2 off and on",
        lambda scene: scene.slurm.power_off("node2"),
        "new job",
        LOST_NODE,
        mend=power_cycle("node2"),
    ),
    Event(
        "node1 off and on",
        lambda scene: scene.slurm.power_off("node1"),
        "new job",
        LOST_NODE,
        mend=power_cycle("node1"),
    ),
    Event("preempted by another partition", preempt, "new job", "told to end, .*for another job", graceful=True),
    Event("slurmctld restarts", restart_controller, "goes on"),
    Event("slurmctld is down until noticed", controller_away, "goes on"),
    Event("slurmctld hangs until noticed", controller_hangs, "goes on"),
    Event("SIGKILL of the flow", kill_flow, "started again", "SIGKILL"),
    Event("SIGKILL of the worker", kill_worker, "started again", "the worker .* ended", graceful=True),
    Event("cancel by the UI's request", cancel, "Cancelled", graceful=True),
    Event("full disk", fill_disk, "Failed", "disk is full|No space left", mend=make_room),
    Event("scancel by somebody", cancel_by_slurm, "Failed", "was cancelled"),
    Event(
        "time limit",
        wait_for_the_limit,
        "new job",
        "told to end, by its time limit",
        graceful=True,
        settings={"launcher.slurm.time": 4, "launcher.slurm.save_seconds": 60},
    ),
    Event(
        "slurmd killed, the job goes on elsewhere",
        strand,
        "new job",
        LOST_NODE,
        mend=start_all_slurmd,
        settings={"launcher.nnodes": 1},
    ),
    Event("out of memory", nothing, "Failed", "out of memory", settings={"launcher.slurm.mem": "250M"}, is_new=True),
    Event(
        "never starts, then cancelled",
        take_all_nodes,
        "Cancelled",
        mend=give_nodes_back,
        settings={"launcher.slurm.partition": "main"},
        is_new=True,
    ),
    Event("^C", interrupt, "Crashed", "abort|interrupt", graceful=True, from_command_line=True),
    Event("SIGKILL of rank 0", kill("rank", "node1"), "stage retried", "killed by SIGKILL"),
    Event("SIGKILL of rank 1", kill("rank", "node2"), "stage retried", "killed by SIGKILL"),
    Event("SIGKILL of node1's torchrun", kill("agent", "node1"), "stage retried", "SIGKILL"),
    Event("SIGKILL of node2's torchrun", kill("agent", "node2"), "stage retried", "SIGKILL"),
)
