"""A run that is killed at given moments and restarted with the same command, until it succeeds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flows.resume_proof.comparison import Check
from flows.resume_proof.kill_points import ORDER, KillPoint, Position, last_step
from flows.resume_proof.run_watch import AFTER_ALL, RunWatch
from tasks.process.process import Process
from titanflow.common.errors import StageFailed
from titanflow.publish.bundle import LINEAGE
from titanflow.runs.contract import METRICS_FILE, PREPARING_FILE

POLL_SECONDS = 0.1
"""Looking more often would slow the training."""
SAVE_POLL_SECONDS = 0.001
"""How often to look while waiting for a save, which takes milliseconds."""
SAVE_STEPS = 2
"""How many steps before a save the waiting for it begins."""
GONE_SECONDS = 60.0
"""How long processes may outlive the killed command; after that they are orphans."""
STALLED_SECONDS = 900.0
"""How long a run may make no progress before it counts as hung."""

ROLES = {
    "titanflow.cli.main": "flow",
    "torch.distributed.run": "torchrun",
    "titan.train.train": "rank",
    "titan.evaluate.evaluate": "rank",
    "titanflow.data.prepare": "stage",
    "titanflow.publish.publish": "rank",
}
"""A process's role, by a module in its command line; the first match counts."""


@dataclass
class Kill:
    """One kill and its consequences.

    ``stage`` is the one that was killed, empty before the first, and ``trains`` says whether it is a training.
    ``step`` is the last one recorded before it. ``resumed_from`` is the step of the checkpoint that training continued
    from (None if nothing was left to train), ``back`` the seconds until the run had come as far again.
    """

    number: int
    stage: str
    trains: bool
    position: Position
    killed: str
    step: int
    half_saved: bool
    at: float
    resumed_from: int | None = None
    back: float | None = None

    @property
    def moment(self) -> str:
        if self.position.stage < 0:
            return "before the first stage"
        if self.position.phase == AFTER_ALL:
            return "its end"
        if self.half_saved:
            return "save"
        names = {ORDER["start"]: "start" if self.trains else "", ORDER["train"]: "training", ORDER["export"]: "export"}
        return names[self.position.phase]

    @property
    def redone(self) -> int | None:
        """Steps that were trained twice."""
        return None if self.resumed_from is None else max(self.step - self.resumed_from, 0)

    def as_json(self) -> dict[str, Any]:
        return {
            "kill": self.number,
            "stage": self.stage,
            "moment": self.moment,
            "killed": self.killed,
            "step": self.step,
            "resumed_from": self.resumed_from,
            "redone": self.redone,
            "seconds": None if self.back is None else round(self.back, 1),
        }


@dataclass
class KilledRun:
    """Starts ``command(attempt)`` again and again and kills it at ``points``; each publication writes a folder of its
    own below ``published``."""

    watch: RunWatch
    points: list[KillPoint]
    command: Callable[[int], list[str]]
    log: Path
    env: dict[str, str]
    published: Path
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        self.kills: list[Kill] = []
        self.starts = 0
        self._reached: float | None = None
        self._publications: dict[str, set[tuple[int, int]]] = {}
        self._left: list[str] = []

    def finish(self) -> list[Kill]:
        """Runs until the command succeeds; it must not hang, nor fail unless it was killed."""
        while True:
            killed_before = len(self.kills)
            status = self._attempt()
            if status == 0:
                for kill in self._waiting():
                    kill.back = time.monotonic() - kill.at
                return self.kills
            if len(self.kills) == killed_before:
                lines = self.log.read_text(errors="replace", encoding="utf-8").splitlines()[-20:]
                told = f"start {self.starts} of the killed run ended with {status}: {self.log}"
                raise StageFailed("\n    ".join([told, *lines]))

    def published_once(self) -> Check:
        if not self._publications:
            return Check("publish: once", True, "nothing to publish")
        often = {name: len(seen) for name, seen in self._publications.items() if len(seen) > 1}
        told = ", ".join(f"{name} published {count} times" for name, count in often.items())
        return Check("publish: once", not often, told or "published once")

    def left_nothing(self) -> Check:
        """Whether all processes of killed runs ended in time."""
        found = f"{len(self._left)} left: {', '.join(self._left)}" if self._left else "none left after any kill"
        return Check("processes", not self._left, found)

    def left_no_files(self) -> Check:
        """Whether no half-written copies lie beside the prepared data and the published model."""
        workspace = self.published.parent
        folders = (workspace, workspace / "data", self.published)
        left = sorted(path.name for folder in folders for path in folder.glob(".*") if path.name != PREPARING_FILE)
        return Check("leftovers", not left, ", ".join(left) or "no half-written copy of data or model")

    def _attempt(self) -> int:
        self.watch.begin()
        self._reached = None
        with self.log.open("ab") as output:
            process = Process(self.command(self.starts), output, self.env)
        self.starts += 1
        moved, position = time.monotonic(), Position(-1, 0)
        try:
            while (status := process.wait(self._poll(position))) is None:
                before, position = position, self.watch.position()
                moved = time.monotonic() if position != before else moved
                self._note(position)
                if self._is_due(position):
                    self._kill(process, position)
                    moved = time.monotonic()
                if time.monotonic() - moved > STALLED_SECONDS:
                    raise StageFailed(f"the killed run made no progress for {STALLED_SECONDS:g} s; its log: {self.log}")
            self._await_end(process)
        finally:
            process.kill()
        self._note(self.watch.position())
        return status

    def _poll(self, position: Position) -> float:
        if not self.points or self.points[0].phase != "save":
            return POLL_SECONDS
        stage, phase, step = self.points[0].position
        return SAVE_POLL_SECONDS if position >= (stage, phase, step - SAVE_STEPS) else POLL_SECONDS

    def _note(self, position: Position) -> None:
        now = time.monotonic()
        for stage, step in self.watch.resumed():
            for kill in self.kills:
                if kill.stage == stage and kill.resumed_from is None:
                    kill.resumed_from = step
        for kill in self._waiting():
            if position >= kill.position:
                kill.back = now - kill.at
        for path in self.published.glob(f"*/{LINEAGE}"):
            with contextlib.suppress(OSError):
                found = path.stat()
                self._publications.setdefault(path.parent.name, set()).add((found.st_ino, found.st_mtime_ns))

    def _waiting(self) -> list[Kill]:
        return [kill for kill in self.kills if kill.back is None]

    def _is_due(self, position: Position) -> bool:
        if not self.points or position < self.points[0].position:
            return False
        point = self.points[0]
        self._reached = self._reached or time.monotonic()
        if point.phase == "save" and position[:2] == point.position[:2]:
            return self.watch.is_saving(point.stage)
        return time.monotonic() - self._reached >= point.seconds

    def _kill(self, process: Process, position: Position) -> None:
        point = self.points.pop(0)
        family = sorted([psutil.Process(process.pid), *process.descendants()], key=_born, reverse=True)
        killed = "everything"
        if point.alone:
            roles: dict[str, psutil.Process] = {}
            for member in family:
                roles.setdefault(_role(member), member)
            found = sorted(role for role in roles if role)
            killed = found[int(point.choice * len(found))]
            family = [roles[killed]]
        # The youngest first, so that no process learns of another's death before its own.
        for member in family:
            with contextlib.suppress(psutil.Error):
                member.kill()
        at = time.monotonic()
        if not point.alone:
            process.kill()
        stage = self.watch.stages[position.stage] if position.stage >= 0 else ""
        step = last_step(self.watch.folder / stage / METRICS_FILE) if stage in self.watch.steps else 0
        half_saved = bool(stage) and self.watch.is_saving(stage)
        kill = Kill(
            number=len(self.kills) + 1,
            stage=stage,
            trains=stage in self.watch.steps,
            position=position,
            killed=killed,
            step=step,
            half_saved=half_saved,
            at=at,
        )
        self.kills.append(kill)
        self.say(f"kill {kill.number}: {killed} {_where(kill)}")
        self.watch.begin()
        self._reached = None

    def _await_end(self, process: Process) -> None:
        """Waits for processes that still save after their parent was killed; those that stay are orphans."""
        deadline = time.monotonic() + GONE_SECONDS
        while (left := process.descendants()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self._left += [_role(member) or member.name() for member in left if member.is_running()]


def _where(kill: Kill) -> str:
    step = f", step {kill.step}" if kill.moment in ("training", "save") else ""
    return f"in {kill.stage} {kill.moment}".rstrip() + step if kill.stage else kill.moment


def _born(process: psutil.Process) -> float:
    try:
        return process.create_time()
    except psutil.Error:
        return 0.0


def _role(process: psutil.Process) -> str:
    try:
        line = process.cmdline()
    except psutil.Error:
        return ""
    return next((role for module, role in ROLES.items() if module in line), "")
