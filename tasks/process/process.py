"""A child process and everything it starts, none of which is left behind.

torchrun puts each rank into a session of its own, so signals to a process group never reach them, and a rank whose
torchrun was killed is nobody's child. Hence descendants are found in two ways: by parentage, and by a mark in the
environment that they inherit. Output goes to a file: with a pipe, ranks that save their last checkpoint when the flow
is already gone would die of a broken one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from tasks.process import bound
from tasks.process.held_signals import held_signals
from titanflow.common.utf8_mode import STREAMS
from titanflow.planning.launch import OF_PYTHON
from titanflow.runs import torchrun

MARK = "TITANFLOW_PROCESS"
"""Environment variable with the marks of the processes that a process descends from, separated by ``/``."""
GRACE_SECONDS = 20.0
"""How long a process may save after SIGTERM. Prefect's worker kills the flow after 30 s."""
SETTLE_SECONDS = 1.0
"""How long descendants may outlive a process that ended by itself before they get SIGTERM."""
KILLED_SECONDS = 20.0
"""How long to wait for the end of killed processes: it is late on a busy machine, and fails while a disk hangs."""


class Process:
    """A started command; :meth:`stop` ends it with all its descendants."""

    def __init__(self, command: Sequence[str], output: IO[bytes], env: Mapping[str, str] | None = None) -> None:
        """Starts ``command`` in a session of its own, its output appended to ``output``."""
        self.mark = uuid.uuid4().hex
        marks = "/".join(part for part in (os.environ.get(MARK, ""), self.mark) if part)
        self._popen = psutil.Popen(
            [sys.executable, "-I", "-S", bound.__file__, str(os.getpid()), *command],
            env={**inherited_environment(), **OF_PYTHON, **(env or {}), MARK: marks},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float) -> int | None:
        """Waits at most ``timeout`` seconds and returns the exit status, None if the command still runs."""
        # psutil is woken by the end; the standard library polls twenty times a second, which slows a training.
        with contextlib.suppress(psutil.TimeoutExpired):
            return self._popen.wait(timeout)
        return None

    def stop(self, grace: float) -> None:
        """Ends the command and its descendants: SIGTERM, at most ``grace`` seconds, SIGKILL.

        At first only the command gets SIGTERM: torchrun forwards it and waits for its ranks to save. A second interrupt
        during the grace leads straight to SIGKILL.
        """
        deadline = time.monotonic() + grace
        try:
            family = self.descendants()
            if self.returncode is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._popen.terminate()
                self.wait(grace)
            elif family:
                _wait_for(family, min(SETTLE_SECONDS, grace))
            left = self.descendants()
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.terminate()
            _wait_for(left, deadline - time.monotonic())
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends the command and its descendants with SIGKILL; returns when none is left."""
        # Someone who presses ^C repeatedly wants all of them to end: no interrupt breaks this off.
        with held_signals():
            killed: list[psutil.Process] = []
            # A process may fork before its kill: repeat until none is found.
            while family := [process for process in self.descendants() if process not in killed]:
                for process in family:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                killed += family
            with contextlib.suppress(psutil.NoSuchProcess):
                self._popen.kill()
            self.wait(KILLED_SECONDS)
            _wait_for(killed, KILLED_SECONDS)

    def descendants(self) -> list[psutil.Process]:
        """The living processes that the command started, directly or not, orphans included."""
        found = {process for process in _marked(self.mark) if process.pid != self.pid}
        with contextlib.suppress(psutil.Error):
            found.update(psutil.Process(self.pid).children(recursive=True))
        return [process for process in found if _alive(process)]


@contextlib.contextmanager
def started(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, grace: float = GRACE_SECONDS
) -> Iterator[Process]:
    """Runs a command for as long as the block lasts; however the block ends, no process is left."""
    process = None
    try:
        # Only the object knows the process: an interrupt before the assignment would leave it behind.
        with held_signals(), log.open("ab") as output:
            process = Process(command, output, env)
        yield process
    finally:
        # Also reached by Prefect's cancellation, which is no `Exception`, and by the terminal's KeyboardInterrupt.
        if process is not None:
            try:
                process.stop(grace)
            except BaseException:
                # An interrupt may come before stopping has begun. After `stop` this kills nothing twice.
                process.kill()
                raise


def inherited_environment() -> dict[str, str]:
    """This process's environment without variables that would change a stage's torchrun or its log.

    A cluster's operator may set such variables for its own torchrun: with ``PET_NNODES=2`` a stage would wait for a
    second machine. Logs are UTF-8 whatever the terminal's encoding.
    """
    kept = os.environ.items()
    return {name: value for name, value in kept if not name.startswith(torchrun.DEFAULTS) and name != STREAMS}


def _alive(process: psutil.Process) -> bool:
    # A zombie has ended, and in a container without an init process nobody ever reaps it.
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for(processes: Sequence[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    left = [process for process in processes if _alive(process)]
    while left and (remaining := deadline - time.monotonic()) > 0:
        psutil.wait_procs(left, timeout=min(0.1, remaining))
        left = [process for process in left if _alive(process)]


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in process.environ().get(MARK, "").split("/"):
                yield process
