"""Faults that a test plants in the local Hub: what may go wrong between a client and its answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Kind = Literal["refuse", "drop", "slow", "truncate", "before"]
PATIENCE = 60.0
"""Seconds after which a slow Hub gives up on a client that never does."""


@dataclass
class Fault:
    """The next ``times`` requests whose ``METHOD /path`` matches ``pattern`` meet it."""

    pattern: str
    times: int
    kind: Kind
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    action: Callable[[], None] = lambda: None


class Faults:
    """What is planted; the local Hub is one of these."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fail(self, pattern: str, status: int, times: int = 1, **headers: str) -> None:
        """Refused with ``status``, not carried out."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.faults.append(Fault(pattern, times, "refuse", status, named))

    def drop(self, pattern: str, times: int = 1) -> None:
        """Carried out, and the connection breaks before the answer; of a HEAD's, which has no body, no header comes."""
        self.faults.append(Fault(pattern, times, "drop"))

    def slow(self, pattern: str, times: int = 1) -> None:
        """Carried out, and no answer comes before the client has lost its patience."""
        self.faults.append(Fault(pattern, times, "slow"))

    def truncate(self, pattern: str, times: int = 1) -> None:
        """Carried out, and the connection breaks in the middle of the answer."""
        self.faults.append(Fault(pattern, times, "truncate"))

    def before(self, pattern: str, action: Callable[[], None]) -> None:
        """``action`` runs just before the next matching request is carried out."""
        self.faults.append(Fault(pattern, 1, "before", action=action))

    def met(self, line: str) -> Fault | None:
        """The fault that a request meets; it is used up by that."""
        fault = next((fault for fault in self.faults if fault.times and re.search(fault.pattern, line)), None)
        if fault is not None:
            fault.times -= 1
        return fault


async def answer(response: Response, fault: Fault | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends an answer, as far as the fault lets it through."""
    kind = fault.kind if fault is not None else ""
    if kind == "slow":
        # Not a number of seconds: the client's own patience ends this.
        await asyncio.wait_for(disconnected(receive), PATIENCE)
    elif kind == "drop" or (kind == "truncate" and not cut(response)):
        # uvicorn closes a connection whose answer is not complete.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99")]})
    elif kind == "truncate":
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": cut(response), "more_body": True})
    else:
        await response(scope, receive, send)


def cut(response: Response) -> bytes:
    return bytes(response.body[: len(response.body) // 2])


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
