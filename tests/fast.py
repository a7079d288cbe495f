"""``--fast``: the tests that start no process and aren't marked slow, which is where the time goes.

Those that start one are skipped as they try. A test that is skipped proves nothing, not even where it had failed before
it tried: ``make test`` runs it whole.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system")
"""What the interpreter calls the start of a process (https://docs.python.org/3/library/audit_events.html)."""
REASON = "it starts a process (--fast)"
ALL_SLOW = re.compile(r"^pytestmark = .*\bmark\.slow\b", re.MULTILINE)


class Fast:
    """Leaves out what is slow, and skips a test as it starts a process, in whatever thread, whatever becomes of the
    exception there.
    """

    def __init__(self) -> None:
        self.is_in_test = self.has_tried = False
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_in_test and event in STARTS:
            self.has_tried = True
            pytest.skip(REASON)

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Leaves out a file of slow tests alone before it imports what they need, which takes seconds."""
        is_slow = collection_path.suffix == ".py" and ALL_SLOW.search(collection_path.read_text(encoding="utf-8"))
        return True if is_slow else None

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leaves out the other slow tests."""
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)

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
