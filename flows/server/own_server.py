"""The Prefect server that a run starts for itself: ``python -m flows.server.own_server PORT``.

It sleeps while nothing is asked of it. Prefect's own wakes up a hundred times a second: its background worker (docket)
looks for schedules, late runs and pauses to end, of which a server that lasts as long as one run has none; docket's
queue in memory looks for what has expired; uvicorn looks whether it should end. Beside a training that uses all cores
of a small machine, that takes several percent of the tokens per second. Prefect (3.8) has no setting for it, hence the
replacement of the two names by which its app starts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

TICK_SECONDS = 10.0
"""How often the date in the headers of answers is made anew."""


class OwnServer(uvicorn.Server):
    """Is woken by the signal that ends it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()

    async def main_loop(self) -> None:
        """Sleeps until there is a request, or the end."""
        # Only the ticks whose count is a multiple of ten make the date anew.
        while not await self.on_tick(0):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._end.wait(), TICK_SECONDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes the signal."""
        super().handle_exit(sig, frame)
        # The loop's thread is the one that Python handles signals in, but it may sleep in the selector.
        asyncio.get_running_loop().call_soon_threadsafe(self._end.set)


def without_background_work() -> FastAPI:
    """Prefect's app without docket; what would delete runs or serve a work pool isn't there."""

    # Modules are no garbage: collections during the imports make the start slower, and free nothing.
    gc.disable()
    from prefect.server.api import server

    def nothing(*_: Any, **__: Any) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    server.Docket = server.background_worker = nothing
    app = server.create_app()
    gc.freeze()
    gc.enable()
    return app


def main() -> None:
    """Serves on 127.0.0.1 until SIGTERM ends it."""
    port, app = int(sys.argv[1]), without_background_work
    OwnServer(uvicorn.Config(app, factory=True, host="127.0.0.1", port=port, log_level="warning")).run()


if __name__ == "__main__":
    main()
