"""Two trainings at once, of which one rests: their rates in windows that alternate.

Both start once, so that a pair costs seconds rather than two starts, and the machine has no time to change between a
window and its neighbour.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frame.processes import Failed, MemoryPeak, ended_with, environment, go_on, pause

WARM_UP = 3
"""Steps that are left out at the start: the first ones find and tune kernels."""
POLL_SECONDS = 0.1
STILL_SECONDS = 240.0
"""After so long without a step something hangs."""


@dataclass(frozen=True)
class Step:
    """A finished training step: the end of it by the side's own clock, its units of work, and its loss."""

    seconds: float
    work: float
    loss: float


Reader = Callable[[Sequence[Mapping[str, Any]]], list[Step]]


@dataclass(frozen=True)
class Side:
    """How one side is started: its command, what it writes a line a step to, and how that is read."""

    name: str
    command: Sequence[str]
    records: Path
    read: Reader
    env: Mapping[str, str]


@dataclass(frozen=True)
class Rates:
    """What :func:`in_turns` found of one side: a rate a window, the losses of all steps, MB at the peak."""

    rates: list[float]
    losses: list[float]
    megabytes: float


class Training:
    """A training that is at work or rests."""

    def __init__(self, side: Side, process: subprocess.Popen[str], log: Path) -> None:
        self.side, self.process, self.log = side, process, log
        self._records: list[dict[str, Any]] = []
        self._read_bytes = 0

    def steps(self) -> list[Step]:
        """All finished steps so far."""
        path = self.side.records
        if path.is_file() and path.stat().st_size > self._read_bytes:
            with path.open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read_bytes += len(whole)
            self._records += [json.loads(line) for line in whole.splitlines()]
        return self.side.read(self._records)

    def until(self, is_enough: Callable[[list[Step]], bool]) -> list[Step]:
        """Waits for steps.

        Raises:
            Failed: it has ended, or nothing comes any more.
        """
        seen, moved = 0, time.monotonic()
        while not is_enough(steps := self.steps()):
            if self.process.poll() is not None:
                raise Failed(f"{self.side.name} ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
            if len(steps) > seen:
                seen, moved = len(steps), time.monotonic()
            if time.monotonic() - moved > STILL_SECONDS:
                raise Failed(f"{self.side.name} made no step in {STILL_SECONDS:g} s:\n{self.log.read_text()[-3000:]}")
            time.sleep(POLL_SECONDS)
        return steps

    def rate(self, seconds: float) -> float:
        """Work a second in a window; the step that was under way when the window began isn't counted."""
        go_on(self.process.pid)
        begun = len(self.steps())

        def is_enough(steps: list[Step]) -> bool:
            own = steps[begun:]
            return len(own) > 2 and own[-1].seconds - own[0].seconds >= seconds

        steps = self.until(is_enough)
        pause(self.process.pid)
        first, *own = steps[begun:]
        return sum(step.work for step in own) / (own[-1].seconds - first.seconds)


@contextmanager
def started(side: Side) -> Iterator[Training]:
    """Starts a training, and ends it with the block."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        log = Path(folder, "log")
        file = stack.enter_context(log.open("w"))
        process = subprocess.Popen(
            list(side.command), env=environment(side.env), stdout=file, stderr=subprocess.STDOUT, text=True
        )
        stack.enter_context(ended_with(process))
        yield Training(side, process, log)


def in_turns(sides: Sequence[Side], pairs: int, seconds: float) -> list[Rates]:
    """Rates of two trainings in alternate windows; the order within a pair alternates.

    Raises:
        Failed: one of them ends or hangs.
    """
    with ExitStack() as stack:
        trainings, peaks = [], []
        for side in sides:
            training = stack.enter_context(started(side))
            peaks.append(stack.enter_context(MemoryPeak(training.process.pid)))
            training.until(lambda steps: len(steps) >= WARM_UP)
            pause(training.process.pid)
            trainings.append(training)
        rates: list[list[float]] = [[] for _ in sides]
        for pair in range(pairs):
            for number in range(len(sides))[:: -1 if pair % 2 else 1]:
                rates[number].append(trainings[number].rate(seconds))
        losses = [[step.loss for step in training.steps()] for training in trainings]
    return [Rates(*found, peak.megabytes) for *found, peak in zip(rates, losses, peaks, strict=True)]


def losses_of(sides: Sequence[Side], steps: int) -> list[list[float]]:
    """The first losses of each side; all are at work at once, since no time is taken."""
    with ExitStack() as stack:
        trainings = [stack.enter_context(started(side)) for side in sides]
        found = []
        for training in trainings:
            found.append([step.loss for step in training.until(lambda made: len(made) >= steps)[:steps]])
            # It would go on, at the cost of those that aren't there yet.
            pause(training.process.pid)
        return found
