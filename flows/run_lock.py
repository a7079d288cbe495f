"""One run at a time in a run's folder; another waits for it, or is refused."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from flows.sign_of_life import DEAD_SECONDS, HOLDER_FILE, Watch, job_of, sign_of_life
from titanflow.common.errors import StageFailed
from titanflow.common.file_lock import holder, open_lock, sign, take
from titanflow.planning.launch import STAGE_FOLDER
from titanflow.runs.contract import RUN_FILE

POLL_SECONDS = 1.0
SAY_SECONDS = 30.0
"""How often a waiting run says whom it waits for."""
LEFT_SECONDS = 60.0
"""How long even a run that doesn't wait for others waits for the stages of a killed run, which are saving."""


def check_free(folder: Path) -> None:
    """Refuses a run's folder that another run of this machine's locks holds: before a plan is made, which takes time.

    Raises:
        StageFailed: names the process that holds it.
    """
    if found := holder(folder):
        raise _in_use(folder, found)


@contextlib.contextmanager
def run_lock(folder: Path, wait: bool = False, say: Callable[[str], None] = lambda line: None) -> Iterator[bool]:
    """Holds a run's folder, which the system frees however this process ends; yields whether it had to wait.

    With ``wait`` it waits for another run as long as that takes, otherwise it is refused; ``say`` is told now and then
    whom it waits for. A killed run's lock is free at once, but its stages may still be saving their last checkpoint, so
    they are waited for, too. Where the file system's locks count for one machine alone, a run on another machine is
    known by its sign of life. After waiting the folder has changed, and the caller plans anew.
    """
    with open_lock(folder) as file:
        waited = _wait(lambda: take(file), folder, lambda _: not wait, say)
        waited |= _wait(lambda: _writers(folder), folder, lambda seconds: not wait and seconds >= LEFT_SECONDS, say)
        watch = Watch(folder / HOLDER_FILE)
        longest = DEAD_SECONDS + LEFT_SECONDS
        waited |= _wait(watch.holder, folder, lambda seconds: not wait and (watch.is_alive or seconds >= longest), say)
        sign(file, f"process {os.getpid()} on {socket.gethostname()}")
        with sign_of_life(folder / HOLDER_FILE):
            yield waited


def _wait(
    blocked_by: Callable[[], str], folder: Path, gives_up: Callable[[float], bool], say: Callable[[str], None]
) -> bool:
    """Waits until nothing blocks, or ``gives_up`` after so many seconds; returns whether anything did."""
    started, said = time.monotonic(), -SAY_SECONDS
    while blocker := blocked_by():
        waited = time.monotonic() - started
        if gives_up(waited):
            raise _in_use(folder, blocker)
        if waited - said >= SAY_SECONDS:
            say(f"{folder} is in use by {blocker}: has waited for it for {waited:.0f} s")
            said = waited
        time.sleep(POLL_SECONDS)
    return said >= 0


def _in_use(folder: Path, holder: str) -> StageFailed:
    hint = "wait for it (--wait), or give this run another name with --run"
    return StageFailed(f"{folder} is in use by {holder}: {hint}")


def _writers(folder: Path) -> str:
    """The processes of this machine that write into a stage's folder of the run; empty if there are none."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid in own or process.status() == psutil.STATUS_ZOMBIE:
                continue
            # A stage's process is known by its run.yaml, its children by their environment.
            environ = process.environ()
            # A cluster's job on this machine outlives its flow: the next one follows it.
            if job_of(environ) != job_of(os.environ):
                continue
            files = [Path(word).parent for word in process.cmdline() if word.endswith(f"/{RUN_FILE}")]
            if folder in (path.parent for path in (*files, Path(environ.get(STAGE_FOLDER, "")))):
                found.append(process.pid)
    processes = f"process {found[0]}" if len(found) == 1 else f"processes {', '.join(map(str, found))}"
    return f"{processes}, left by a run that was killed" if found else ""
