"""Makes sure that a process with a flow run ends on a signal, whoever handles the signal and however slowly."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import psutil

from titanflow.runs.contract import STOP_SIGNALS


def hangup_as_sigterm() -> None:
    """From now on the end of this process's terminal ends the process as SIGTERM does; ``nohup`` stays in force."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _hang_up)


def _hang_up(number: int, frame: FrameType | None) -> None:
    # To write to a terminal that is gone would raise an error in the midst of cleaning up.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for output in (1, 2):
        # The system takes a terminal that is gone for none (`isatty`).
        if stat.S_ISCHR(os.fstat(output).st_mode):
            os.dup2(nowhere, output)
    signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Leaves the block by ``SystemExit`` on SIGTERM, so that what it started is stopped; SIGHUP counts as SIGTERM."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    # Prefect passes a SIGTERM on to this handler; the default one would end the process before it stops its server.
    before = signal.signal(signal.SIGTERM, leave)
    hangup_as_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Kills this process and its descendants ``seconds`` after the first SIGINT or SIGTERM in the block.

    Prefect reports a crash to its server again and again, for over a minute if the server is gone, so that the process
    seems to hang. Its handlers replace others while a flow runs; the interpreter's own pipe hears every signal.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    thread = threading.Thread(target=_end, args=(heard, seconds), daemon=True, name="ended-after")
    thread.start()
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told.close()


def _end(heard: socket.socket, seconds: float) -> None:
    with heard:
        number = 0
        while number not in STOP_SIGNALS:
            if not (byte := heard.recv(1)):
                return
            number = byte[0]
        # This also limits what follows the block, such as Prefect's work at the interpreter's exit.
        # The pipe stays open to the end, because Prefect sends its process the signal a second time.
        threading.Event().wait(seconds)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        os._exit(128 + number)
