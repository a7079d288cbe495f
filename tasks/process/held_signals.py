"""Signals that wait until what they would break off in the middle is done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """SIGINT and SIGTERM that come during the block are answered after it, each once.

    Their handlers raise an exception between any two bytecodes of the main thread. Blocking them in the kernel doesn't
    help, as any other thread takes them then, and Python calls their handlers in the main one all the same. What the
    system itself does on a signal, as ending the process, isn't held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    is_over = False

    def answer(number: int, frame: FrameType | None) -> None:
        if is_over:
            before[number](number, frame)
        elif number not in came:
            came.append(number)

    before = {int(number): handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, answer)
        yield
    finally:
        # From here on one may break this off, too: what it leaves in place is transparent.
        is_over = True
        for number, handler in before.items():
            if signal.getsignal(number) is answer:
                signal.signal(number, handler)
        # Each is answered though the handler of the one before raises.
        with contextlib.ExitStack() as answers:
            for number in reversed(came):
                answers.callback(signal.raise_signal, number)
