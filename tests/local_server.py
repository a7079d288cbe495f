"""An application of the tests, served on this machine by a thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import threading
from typing import Any, Self

import uvicorn


class _Server(uvicorn.Server):
    """Ends as soon as ``ended`` has a result: uvicorn's own looks ten times a second, twice before it ends."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await asyncio.wrap_future(self.ended)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            # Whoever has gone meanwhile gets no answer; the end of the loop cancels what still waits.
            await asyncio.wait(self.server_state.tasks, timeout=1)


class LocalServer:
    """A context manager that serves an ASGI application at ``url``."""

    def __init__(self, app: Any) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        # An answer leaves in two writes; without this the second waits 40 ms for the first's acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = _Server(uvicorn.Config(app, interface="asgi3", log_level="critical", lifespan="off"))
        # The socket listens already: whoever connects before the thread runs waits in its queue.
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.ended.set_result(None)
        self.thread.join()
        self.socket.close()
