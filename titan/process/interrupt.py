"""A stage's answer to SIGTERM: leave at once before and after training, at the next step boundary within it."""

from __future__ import annotations

import os
import signal
import sys
import threading

from titanflow.runs.contract import INTERRUPTED_EXIT, STOP_SIGNALS


class Interruption:
    """Listens for SIGTERM and SIGINT.

    Python runs a signal handler only between two bytecodes of the main thread, which may wait in C++ for other ranks
    for minutes. A thread reads the interpreter's wake-up descriptor instead, which is written at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Starts listening; only the main thread may call it."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda number, frame: None)
        threading.Thread(target=self._watch, args=(reader,), daemon=True, name="interruption").start()

    def defer(self) -> None:
        """From here on a signal only sets ``requested``; the caller checks it and leaves in good order."""
        with self._lock:
            self._deferred = True

    def release(self) -> None:
        """From here on a signal ends the process at once again."""
        with self._lock:
            self._deferred = False

    def _watch(self, reader: int) -> None:
        while True:
            for number in os.read(reader, 64):
                if number in STOP_SIGNALS:
                    self._receive(signal.Signals(number))

    def _receive(self, number: signal.Signals) -> None:
        with self._lock:
            self.requested = True
            if self._deferred:
                return
            print(f"{number.name}: leaving; no step was in progress, so there is nothing to save", flush=True)
            leave(INTERRUPTED_EXIT)


def leave(status: int) -> None:
    """Ends the process at once: a process group's destructor would wait for ranks that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
