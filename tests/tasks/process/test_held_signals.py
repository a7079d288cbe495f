import os
import signal
import threading

import pytest

from tasks.process.held_signals import held_signals
from titanflow.runs.contract import STOP_SIGNALS


class Ended(BaseException):
    """What a handler raises, as Prefect's does."""


@pytest.fixture
def came():
    """The signals that a handler was called with, which also raises; SIGTERM's is its own, SIGINT's is Python's."""
    numbers = []

    def handler(number, frame):
        numbers.append(number)
        raise Ended

    before = signal.signal(signal.SIGTERM, handler)
    yield numbers
    signal.signal(signal.SIGTERM, before)


def get(done, *numbers):
    """Gets signals in a block that holds them, and does something after."""
    with held_signals():
        for number in numbers:
            os.kill(os.getpid(), number)
        done.append("all of it")


def test_a_signal_is_answered_after_the_block_and_once(came):
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    done = []
    with pytest.raises(Ended):
        get(done, *[signal.SIGTERM] * 3)
    assert (done, came) == (["all of it"], [signal.SIGTERM])
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers


def test_the_handler_of_each_is_back_though_both_came(came):
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    done = []
    with pytest.raises((Ended, KeyboardInterrupt)):
        get(done, *STOP_SIGNALS)
    assert done == ["all of it"]
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers


def test_both_are_answered_though_the_first_raises(came):
    done = []
    with pytest.raises(Ended):
        get(done, *STOP_SIGNALS)
    assert came == [signal.SIGTERM]


def test_a_handler_that_the_block_sets_stays(came):
    before = signal.getsignal(signal.SIGINT)
    try:
        with held_signals():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_a_signal_nothing_happens_and_an_error_passes(came):
    with pytest.raises(ValueError, match="its own"), held_signals():
        raise ValueError("its own")
    assert came == []


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_signals():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_needs_no_holding(came):
    handler, seen = signal.getsignal(signal.SIGTERM), []

    def look():
        with held_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [handler]
