"""The Prefect server that a run starts for itself: ``python -m flows.server.own_server PORT DATABASE``.

It sleeps while it has no requests. Prefect's own server wakes up all the time: its background worker (docket) looks for
schedules, late runs and pauses to end, which a server for one run never has; docket's queue in memory looks for expired
entries; uvicorn looks whether it should end. With Prefect 3.9.1 this takes 1.4 % of a core (docs/decisions.md), which a
training on all cores of a small machine lacks. Prefect has no setting for it, so this replaces the two names by which
its app starts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from flows.server import own_database
from titanflow.common.collector import collector_at_rest

TICK_SECONDS = 10.0
"""How often the date in the answers' headers is renewed."""


class OwnServer(uvicorn.Server):
    """Sleeps until it is woken by a request or by the signal that ends it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()

    async def main_loop(self) -> None:
        # Only ticks whose count is a multiple of ten renew the date.
        while not await self.on_tick(0):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._end.wait(), TICK_SECONDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        # Python handles signals in the loop's thread, but that may be asleep in the selector.
        asyncio.get_running_loop().call_soon_threadsafe(self._end.set)


def without_background_work() -> FastAPI:
    """Prefect's app without docket: there is nothing that deletes runs or serves work pools."""
    from prefect.server.api import server

    def nothing(*_: Any, **__: Any) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    server.Docket = server.background_worker = nothing
    return server.create_app()


def main() -> None:
    port, database = int(sys.argv[1]), Path(sys.argv[2])
    with collector_at_rest():
        own_database.make(database)
        app = without_background_work()
        gc.freeze()
    OwnServer(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")).run()


if __name__ == "__main__":
    main()
