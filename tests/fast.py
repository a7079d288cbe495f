"""``--fast``: the tests that start no process, which is where the time goes; the others are skipped as they try.

A test that is skipped proves nothing, not even where it had failed before it tried: ``make test`` runs it whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system")
"""What the interpreter calls the start of a process (https://docs.python.org/3/library/audit_events.html)."""
REASON = "it starts a process (--fast)"


class NoProcess:
    """Skips a test as it starts a process, in whatever thread, and whatever becomes of the exception there."""

    def __init__(self) -> None:
        self.is_in_test = self.has_tried = False
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_in_test and event in STARTS:
            self.has_tried = True
            pytest.skip(REASON)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """Watches a test from its first fixture to its last."""
        self.is_in_test, self.has_tried = True, False
        try:
            return (yield)
        finally:
            self.is_in_test = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        """Skips it also where the exception was caught, or came in another thread."""
        try:
            return (yield)
        finally:
            if self.has_tried:
                pytest.skip(REASON)
