"""What a signal does to a process that runs a flow: it ends, whatever handles the signal and however long it takes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Leaves the block by ``SystemExit`` on SIGTERM, so that what it started is stopped.

    Prefect hands a SIGTERM on to the handler that was there before its own; the default one would end this process
    before it stops its server.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Ends this process and its descendants so many seconds after the block's first SIGINT or SIGTERM, if it still is.

    Prefect tells its server of a crash again and again, for more than a minute if the server is gone, and what waits
    for the process to end takes it for hung. Its handlers replace those of others while a flow runs; the interpreter's
    own pipe hears of every signal.
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
        while number not in SIGNALS:
            if not (byte := heard.recv(1)):
                return
            number = byte[0]
        # What comes after the block, as Prefect's farewell at the interpreter's exit, has no more time than this.
        # The pipe stays open to the end: Prefect sends its process the signal a second time.
        threading.Event().wait(seconds)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        os._exit(128 + number)
