"""A service of this machine (server, worker) that is restarted when it ends by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.process.process import GRACE_SECONDS, Process
from titanflow.common.errors import StageFailed

MOST_RESTARTS = 5
RESTART_WINDOW_SECONDS = 600.0


class Supervised:
    """A command that runs until :meth:`stop`; when it ends by itself, its descendants are ended, too.

    ``name`` is Prefect's name for it, if it has one; ``is_up`` is called with each started process and returns when
    that is ready.
    """

    def __init__(
        self,
        kind: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        name: str = "",
        is_up: Callable[[Process], None] = lambda process: None,
    ) -> None:
        self.kind, self.name, self._is_up = kind, name, is_up
        self.command, self.log, self.env = command, log, env
        self._restarts: list[float] = []
        log.unlink(missing_ok=True)
        self.process = self._start()

    def restart_if_ended(self) -> str:
        """Starts the command again if it has ended, and says so; empty while it runs."""
        status = self.process.returncode
        if status is None:
            return ""
        self.process.stop(GRACE_SECONDS)
        now = time.monotonic()
        self._restarts = [before for before in self._restarts if now - before < RESTART_WINDOW_SECONDS]
        if len(self._restarts) >= MOST_RESTARTS:
            raise StageFailed(
                f"the {self.kind} ended with {status}, {MOST_RESTARTS + 1} times in "
                f"{RESTART_WINDOW_SECONDS / 60:g} minutes; its log: {self.log}"
            )
        self._restarts.append(now)
        self.process = self._start()
        return f"the {self.kind} ended with {status} and was started again; its log: {self.log}"

    def stop(self) -> None:
        self.process.stop(GRACE_SECONDS)

    def _start(self) -> Process:
        with self.log.open("ab") as output:
            process = Process(self.command, output, self.env)
        try:
            self._is_up(process)
        except BaseException:
            process.stop(GRACE_SECONDS)
            raise
        return process
