"""A training stage's metrics in a tracker's store, without a gap or a repeat after a resume."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from titan.tracking.stores.store import Store, open_store
from titanflow.common.errors import StageFailed
from titanflow.runs.contract import StageRun
from titanflow.runs.tracker_record import TITLES

PATIENCE = 60.0
"""Seconds that the last rows may take at the end of a stage."""


class StoreLogger:
    """Logs a row a step to the stage's run, from a thread of its own: the training waits for no disk or server.

    A killed stage has logged steps after its checkpoint, and lost rows that were still in the thread. So a start asks
    the store for what it has, adds what is missing from ``metrics.jsonl``, and never says anything twice: the steps
    after the checkpoint stay as first logged.
    """

    def __init__(self, run: StageRun, tracker: str) -> None:
        self.run, self.tracker, self.name = run, tracker, TITLES[tracker]
        self._store: Store | None = None
        self._known: dict[int, set[str]] = {}
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=tracker)
        self._pending: deque[Future[None]] = deque()

    def begin(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Opens the run, and completes its history to ``rows``."""
        self._hand_over(self._begin, rows)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._hand_over(self._log, dict(metrics), step)

    def complete(self) -> None:
        self._finish(failed=False)

    def close(self) -> None:
        """Ends the run, as failed during an exception."""
        self._finish(failed=sys.exc_info()[0] is not None)

    def _hand_over(self, action: Callable[..., None], *arguments: Any) -> None:
        """Lets the thread do something; raises what failed in it before."""
        while self._pending and self._pending[0].done():
            self._result_of(self._pending.popleft())
        self._pending.append(self._worker.submit(action, *arguments))

    def _result_of(self, done: Future[None]) -> None:
        try:
            done.result()
        except BaseException:
            self._worker.shutdown(wait=False, cancel_futures=True)
            raise

    def _begin(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        store, _ = open_store(self.run, self.tracker)
        self._known = store.known()
        self._store = store
        for step, row in rows.items():
            self._log(row, step)

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        known = self._known.setdefault(step, set())
        new = {name: value for name, value in metrics.items() if name not in known}
        if not new or self._store is None:
            return
        try:
            self._store.log(step, new)
        except BaseException:
            # The rows behind it would wait as long, one after another.
            self._store = None
            raise
        known.update(new)

    def _end(self, failed: bool) -> None:
        if self._store is not None:
            self._store.end(failed)

    def _finish(self, failed: bool) -> None:
        self._hand_over(self._end, failed)
        done, late = wait(self._pending, timeout=PATIENCE)
        self._worker.shutdown(wait=False, cancel_futures=True)
        for one in done:
            one.result()
        if late:
            raise StageFailed(f"it didn't take the last rows within {PATIENCE:.0f} s")
