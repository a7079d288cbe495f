"""When the runs of a resume proof are killed: moments of a finished run, drawn by a seed.

A moment is a place in the run (a step of a training, a share of a stage's time) that is looked for in the files that
its stages write, so it comes at any speed of the machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from titanflow.runs.contract import METRICS_FILE, RESULT_FILE, RUN_FILE, StageRun
from titanflow.runs.manifest import Manifest
from titanflow.runs.metrics import read_metrics

PhaseName = Literal["start", "train", "save", "export", "work"]
ORDER: dict[str, int] = {"start": 0, "work": 0, "train": 1, "save": 1, "export": 2}
SAVES_SHARE = 0.1
"""The share of a training's moments that lie in the middle of a save; by time alone these would be rare."""
LATEST = 0.7
"""No moment lies later in a stage than this share of its time, as the stage may be faster next time."""


class Position(NamedTuple):
    """How far a run has come: the numbers of its stage among its stages (``-1`` before the first) and of its phase,
    and the step."""

    stage: int
    phase: int
    step: int = 0


@dataclass(frozen=True)
class Phase:
    """A part of a finished run: its duration and, for a training, its steps and their interval of saves."""

    stage: str
    name: PhaseName
    seconds: float
    steps: int = 0
    interval: int = 1


@dataclass(frozen=True)
class KillPoint:
    """A moment ``seconds`` after the run reached ``step`` of a phase; if ``alone``, only the process at ``choice``, in
    [0, 1), dies. ``number`` is the stage's among those of the run."""

    stage: str
    number: int
    phase: PhaseName
    step: int
    seconds: float
    alone: bool
    choice: float = 0.0

    @property
    def position(self) -> Position:
        return Position(self.number, ORDER[self.phase], self.step)


def phases(folder: Path) -> list[Phase]:
    """The phases of a finished run, in order, measured by the times of its files."""
    found: list[Phase] = []
    for stage in Manifest.open(folder).stages:
        if (folder / stage / RESULT_FILE).exists():
            found += _phases_of(folder / stage, stage)
    return found


def stages_of(phases: Iterable[Phase]) -> list[str]:
    """The stages of a run, in order."""
    return list(dict.fromkeys(phase.stage for phase in phases))


def _phases_of(folder: Path, stage: str) -> list[Phase]:
    began, ended = ((folder / name).stat().st_mtime for name in (RUN_FILE, RESULT_FILE))
    metrics = folder / METRICS_FILE
    run = StageRun.read(folder / RUN_FILE)
    records = read_metrics(metrics) if run.trains else []
    if not records:
        return [Phase(stage, "work", max(ended - began, 0.0))]
    trained = metrics.stat().st_mtime
    training = records[-1]["seconds"] - records[0]["seconds"]
    steps = records[-1]["step"]
    interval = min(int((run.config.get("checkpoint") or {}).get("interval") or steps), steps)
    return [
        Phase(stage, "start", max(trained - training - began, 0.0)),
        Phase(stage, "train", training, steps),
        Phase(stage, "save", training * SAVES_SHARE, steps, interval),
        Phase(stage, "export", max(ended - trained, 0.0)),
    ]


def draw(phases: Sequence[Phase], kills: int, seed: int, stages: Iterable[str] = ()) -> list[KillPoint]:
    """Draws ``kills`` moments, only in ``stages`` if there are any: one in each training, in each other phase, then by
    duration."""
    numbers = {stage: number for number, stage in enumerate(stages_of(phases))}
    wanted = set(stages) or set(numbers)
    eligible = [phase for phase in phases if phase.stage in wanted]
    if kills and not eligible:
        raise ValueError("no phase to draw from")
    random = Random(seed)
    points: list[KillPoint] = []
    unmet = list(eligible)
    for _ in range(kills):
        among = [phase for phase in unmet if phase.name == "train"] or unmet or eligible
        phase = random.choices(among, [phase.seconds + 1e-3 for phase in among])[0]
        if phase in unmet:
            unmet.remove(phase)
        points.append(_point(phase, numbers[phase.stage], random))
    return sorted(points, key=lambda point: (point.position, point.seconds))


def _point(phase: Phase, number: int, random: Random) -> KillPoint:
    step, seconds = 0, 0.0
    if phase.name == "train":
        step = random.randint(1, phase.steps)
        seconds = random.random() * phase.seconds / phase.steps
    elif phase.name == "save":
        step = phase.interval * random.randint(1, max(phase.steps // phase.interval, 1))
    else:
        seconds = random.random() * LATEST * phase.seconds
    return KillPoint(
        phase.stage, number, phase.name, step, seconds, alone=random.random() < 0.5, choice=random.random()
    )


def last_step(metrics: Path) -> int:
    """The last step in a ``metrics.jsonl``, 0 before the first; reads only the end of the file."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - 8192))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, LookupError, TypeError):
            continue
    return 0
