"""The resume proof: one run of an experiment left in peace, one killed at random moments, and their comparison."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_API_URL

from flows.interruption.by_signal import sigterm_as_exit
from flows.local_run import INTERRUPTED_SECONDS, local_api
from flows.resume_proof.comparison import Check, compare
from flows.resume_proof.kill_points import draw, phases, stages_of
from flows.resume_proof.killed_run import Kill, KilledRun
from flows.resume_proof.run_watch import RunWatch
from tasks.process.process import started
from titanflow.common.errors import ConfigError, Problem, StageFailed
from titanflow.config.module import Module
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan
from titanflow.runs.metrics import RECORD_BATCHES

TOLERANCE = 1e-4
"""On another number of ranks: the relative difference that losses and gradient norms may have. A step's sums are
rounded otherwise, and training carries the difference on: to 3e-7 after 60 steps of a tiny model."""
STOP_SECONDS = INTERRUPTED_SECONDS + 5.0


@dataclass(frozen=True)
class Ranks:
    """The processes of a training: ``resumed`` in every second start of the killed run, else ``first``."""

    first: int | None = None
    resumed: int | None = None

    def of(self, attempt: int) -> int | None:
        """For start number ``attempt``, from 0 on, of the killed run."""
        return self.resumed if self.resumed is not None and attempt % 2 else self.first

    @property
    def change(self) -> bool:
        return self.resumed is not None and self.resumed != self.first


@dataclass
class Proof:
    """The outcome: the kills, the comparisons, and the duration of the two runs."""

    folder: Path
    kills: list[Kill] = field(default_factory=list)
    unmet: int = 0
    checks: list[Check] = field(default_factory=list)
    seconds: tuple[float, float] = (0.0, 0.0)
    starts: int = 0

    @property
    def holds(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "folder": str(self.folder),
            "kills": [kill.as_json() for kill in self.kills],
            "unmet": self.unmet,
            "starts": self.starts,
            "checks": [asdict(check) for check in self.checks],
            "seconds": {"uninterrupted": round(self.seconds[0], 1), "killed": round(self.seconds[1], 1)},
        }


@dataclass
class Experiment:
    """The experiment to prove, as the command line names it, and the commands of its runs.

    ``fewer`` has the steps that trainings have before more are added, as ``pretrain=100``: the killed run extends them.
    """

    name: str
    workspace: Path
    configs: Path | None = None
    run: str | None = None
    settings: Sequence[str] = ()
    fewer: Sequence[str] = ()

    def plan(self, side: str, ranks: int | None, more: Sequence[str] = ()) -> Plan:
        return make_plan(self.name, self.configs, self.run, [*self.all_settings(side, ranks), *more])

    def command(self, side: str, ranks: int | None, more: Sequence[str] = ()) -> list[str]:
        options = ["--configs", str(self.configs)] if self.configs else []
        options += ["--run", self.run] if self.run else []
        for setting in [*self.all_settings(side, ranks), *more]:
            options += ["--set", setting]
        return [sys.executable, "-m", "titanflow.cli.main", "run", self.name, *options]

    @property
    def shorter(self) -> list[str]:
        """The settings of the killed run with fewer steps; it publishes in a place of its own."""
        given = (one.partition("=") for one in self.fewer)
        publish = [module.name for module in self._modules if module.kind == "publish"]
        return [
            *(f"{stage}.training.steps={steps}" for stage, _, steps in given),
            *(f"{name}.folder={self.published('shorter') / name}" for name in publish),
        ]

    def published(self, side: str) -> Path:
        """Where that run publishes, each publication in a folder of its own, whatever the experiment says."""
        return self.workspace / side / "published"

    def all_settings(self, side: str, ranks: int | None) -> list[str]:
        """The user's settings and those of a proof: each step is recorded, in a workspace of its own."""
        own = [] if ranks is None else [f"launcher.nproc_per_node={ranks}"]
        for module in self._modules:
            if module.trains:
                own.append(f"{module.name}.metrics.log_freq=1")
            # A folder within the stage's own would be moved aside, unseen, when the stage begins again.
            if module.kind == "publish" and (side == "killed" or not _publishes_into_its_own(module)):
                own += [f"{module.name}.target=folder", f"{module.name}.folder={self.published(side) / module.name}"]
        if self.fewer and side == "killed":
            # What comes after a longer training is made again.
            own.append("on_stale=rerun")
        return [*self.settings, *own, "retries.delay=0.1", f"workspace={self.workspace / side}"]

    def __post_init__(self) -> None:
        plan = make_plan(self.name, self.configs, self.run, self.settings, runs_here=False)
        self._modules = list(plan.config.modules.values())


def _publishes_into_its_own(module: Module) -> bool:
    return module.config["target"] == "folder" and not module.config["folder"]


def prove(
    experiment: Experiment,
    kills: int,
    seed: int,
    stages: Sequence[str] = (),
    ranks: Ranks = Ranks(),
    say: Callable[[str], None] = lambda line: None,
) -> Proof:
    """Runs the experiment twice below its workspace, on one server, and compares the two.

    Raises:
        ConfigError: the experiment can't be run, or can't be resumed on another number of ranks.
        StageFailed: a run failed without being killed.
    """
    right, killed = (experiment.plan(side, ranks.first) for side in ("uninterrupted", "killed"))
    if ranks.change:
        check_changeable(experiment.plan("killed", ranks.resumed))
    refuse_other_runs(killed, stages)
    if experiment.fewer:
        # Bad settings are refused before anything runs.
        experiment.plan("killed", ranks.first, experiment.shorter)
    proof = Proof(experiment.workspace)
    with sigterm_as_exit(), local_api() as url:
        env = {PREFECT_API_URL.name: url, RECORD_BATCHES: "1"}
        if experiment.fewer:
            say(f"with fewer steps: {', '.join(experiment.fewer)}")
            shorter = experiment.command("killed", ranks.first, experiment.shorter)
            run_in_peace(shorter, experiment.workspace / "shorter.log", env)
            check_extends(experiment.plan("killed", ranks.first), experiment.fewer)
        began = time.monotonic()
        say(f"uninterrupted: {right.folder}")
        run_in_peace(experiment.command("uninterrupted", ranks.first), experiment.workspace / "uninterrupted.log", env)
        proof.seconds = (time.monotonic() - began, 0.0)
        measured = phases(right.folder)
        points = draw(measured, kills, seed, stages)
        say(f"it took {proof.seconds[0]:.0f} s; killed: {killed.folder}")
        steps = {phase.stage: phase.steps for phase in measured if phase.steps}
        run = KilledRun(
            RunWatch(killed.folder, stages_of(measured), steps),
            points,
            lambda attempt: experiment.command("killed", ranks.of(attempt)),
            experiment.workspace / "killed.log",
            env,
            experiment.published("killed"),
            say,
        )
        began = time.monotonic()
        proof.kills = run.finish()
        proof.seconds = (proof.seconds[0], time.monotonic() - began)
        proof.unmet, proof.starts = len(run.points), run.starts
    checks = compare(right.folder, killed.folder, TOLERANCE if ranks.change else 0.0)
    proof.checks = [*checks, run.published_once(), run.left_nothing(), run.left_no_files()]
    return proof


def run_in_peace(command: Sequence[str], log: Path, env: dict[str, str]) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with started(command, log, env, STOP_SECONDS) as process:
        while (status := process.wait(1.0)) is None:
            pass
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        raise StageFailed("\n    ".join([f"the run that nobody killed ended with {status}; its log: {log}", *lines]))


def check_extends(plan: Plan, fewer: Sequence[str]) -> None:
    """Refuses trainings that more steps would train from scratch: nothing would be proved."""
    problems = []
    for name in (one.partition("=")[0] for one in fewer):
        stage = plan.stage(name)
        if stage is None or stage.state != "EXTEND":
            found = f"{name} is {stage.state}: {stage.reason}" if stage else f"no stage {name}"
            problems.append(Problem(found, "--fewer-steps", expected="a training that more steps extend"))
    if problems:
        raise ConfigError(problems)


def check_changeable(plan: Plan) -> None:
    """Refuses trainings that can't continue on another number of ranks: those that read a stream."""
    problems = []
    for stage in plan.stages:
        module = plan.config.modules.get(stage.stage)
        if module is not None and module.trains and (module.config.get("data") or {}).get("streaming"):
            found = "each rank reads its own part of a stream, which can't be divided again"
            problems.append(module.problem("data.streaming", found, "false", "leave --resume-ranks out"))
    if problems:
        raise ConfigError(problems)


def refuse_other_runs(plan: Plan, stages: Sequence[str]) -> None:
    """Refuses the folder of an earlier killed run, and stages that the experiment doesn't have."""
    known = [stage.stage for stage in plan.stages]
    if unknown := [stage for stage in stages if stage not in known]:
        raise ConfigError(Problem(f"no stage {', '.join(unknown)}", "--stage", expected=f"one of {', '.join(known)}"))
    with contextlib.suppress(FileNotFoundError):
        if os.listdir(plan.folder):  # noqa: PTH208
            found, hint = "it holds a killed run already", "remove it, or name another"
            raise ConfigError(Problem(found, "--workspace", str(plan.folder), hint=hint))
