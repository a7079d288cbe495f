"""An application of the tests, served on this machine by a thread."""

from __future__ import annotations

import socket
import threading
from typing import Any, Self

import uvicorn


class LocalServer:
    """A context manager that serves an ASGI application at ``url``."""

    def __init__(self, app: Any) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        # An answer leaves in two writes; without this the second waits 40 ms for the first's acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(
            app, interface="asgi3", log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        # The socket listens already: whoever connects before the thread runs waits in its queue.
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()
