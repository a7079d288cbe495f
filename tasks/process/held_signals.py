"""Delays signals until the end of a block that they must not break off."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from titanflow.runs.contract import STOP_SIGNALS


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """SIGINT and SIGTERM that come during the block are handled after it, each once.

    Their handlers raise an exception between any two bytecodes of the main thread. Blocking them in the kernel doesn't
    help: another thread takes them then, and Python still calls their handlers in the main one. The system's own
    reaction to a signal, such as ending the process, isn't delayed.
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

    before = {int(number): handler for number in STOP_SIGNALS if callable(handler := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, answer)
        yield
    finally:
        # From here on a signal may break off this, too: an `answer` left in place passes signals on.
        is_over = True
        for number, handler in before.items():
            if signal.getsignal(number) is answer:
                signal.signal(number, handler)
        # The stack handles each signal even if the handler of the one before raises.
        with contextlib.ExitStack() as answers:
            for number in reversed(came):
                answers.callback(signal.raise_signal, number)
