"""Processes of both sides: their seconds, the memory at its peak, and a pause."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parents[2]
SAMPLE_SECONDS = 0.05
"""Looking at all processes takes some milliseconds: more often, the look itself would be measured."""
END_SECONDS = 30.0


class Failed(RuntimeError):
    """A process of one side has failed; its output is the message."""


@dataclass(frozen=True)
class Ran:
    """What a process and those it started took: seconds of the clock and of the processor, and MB at the peak."""

    wall: float
    processor: float
    megabytes: float
    output: str


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's own, with this clone first, offline, and without what a shell says of trackers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "WANDB_"))}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **(more or {})}


def python(*arguments: object) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, *map(str, arguments)]


def titanflow(*arguments: object) -> list[str]:
    """A command of this project, as its script runs it."""
    return python("-m", "titanflow", *arguments)


def run(command: Sequence[str], more: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
    """Runs a command to its end.

    Raises:
        Failed: its exit status isn't 0.
    """
    before, started = os.times(), time.perf_counter()
    process = subprocess.Popen(
        command, env=environment(more), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with MemoryPeak(process.pid) as peak:
        output, _ = process.communicate()
    wall, after = time.perf_counter() - started, os.times()
    if process.returncode:
        raise Failed(f"{' '.join(command)} ended with {process.returncode}:\n{output[-3000:]}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return Ran(wall, processor, peak.megabytes, output)


class MemoryPeak:
    """The most anonymous memory that a process and those it started held together, without pages of mapped files.

    It is sampled, since no event tells of memory.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.megabytes = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.megabytes = max(self.megabytes, sum(map(_anonymous, tree(self.pid))) / 1e6)


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that it started, itself first; none if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _anonymous(process: psutil.Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return int(found[0]) * 1024 if found else 0


def pause(pid: int) -> None:
    """Suspends a process and all that it started."""
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()


def go_on(pid: int) -> None:
    """Resumes what :func:`pause` suspended, those that were started last first."""
    for process in reversed(tree(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


@contextlib.contextmanager
def ended_with(process: subprocess.Popen[str]) -> Iterator[None]:
    """Ends a process and all that it started when the block ends, suspended ones too."""
    try:
        yield
    finally:
        started = tree(process.pid)
        go_on(process.pid)
        for one in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(started, timeout=END_SECONDS)
        process.wait()
