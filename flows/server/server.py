"""A Prefect server's process on this machine: its port, its address, and when it is ready."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tasks.process.process import Process, started
from titanflow.common.errors import StageFailed

STARTUP_SECONDS = 600.0
"""A server's first start creates its database, which takes ten seconds on a small machine and minutes on a busy one."""
SERVER_GRACE_SECONDS = 10.0
HEALTH_POLL_SECONDS = 0.1
LAST_LINES = 10
UNAUTHORIZED = 401
AT_API = {"PREFECT_SERVER_API_BASE_PATH": ""}
"""A server that is started here is where :func:`api_url` says, wherever the user's settings put another one."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nothing listens on a TCP port of 127.0.0.1."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def api_url(port: int) -> str:
    """The address of the API of a server on this machine."""
    return f"http://127.0.0.1:{port}/api"


def healthy(url: str, timeout: float = 2.0) -> bool:
    """Whether a Prefect API answers at ``url``, or asks for a password."""
    try:
        address = urlsplit(url)
        # A name and a password in it are for Prefect's client; urllib would look for a host of that name.
        asked = address._replace(netloc=address.netloc.rpartition("@")[2], path=f"{address.path}/health")
        with urllib.request.urlopen(asked.geturl(), timeout=timeout) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == UNAUTHORIZED
    # No URL, or no HTTP behind it.
    except (OSError, ValueError, http.client.HTTPException):
        return False


@contextlib.contextmanager
def running_server(
    command: Sequence[str], url: str, env: Mapping[str, str], meanwhile: Callable[[], object] | None = None
) -> Iterator[str]:
    """A server for the length of the block; ``meanwhile`` is called while it starts. Yields its ``url``.

    Of a server that doesn't start the log stays: the message names it.
    """
    descriptor, name = tempfile.mkstemp(prefix="titanflow-prefect-server-", suffix=".log")
    os.close(descriptor)
    log, failed = Path(name), False
    try:
        with started(command, log, env, SERVER_GRACE_SECONDS) as process:
            if meanwhile:
                meanwhile()
            try:
                wait_until_healthy(process, url, log, STARTUP_SECONDS)
            except StageFailed:
                failed = True
                raise
            yield url
    finally:
        if not failed:
            log.unlink(missing_ok=True)


def wait_until_healthy(process: Process, url: str, log: Path, timeout: float) -> None:
    """Waits until the server answers that ``process`` runs.

    Raises:
        StageFailed: it ended, or didn't answer in ``timeout`` seconds; the message ends with its last lines.
    """
    for _ in range(max(1, round(timeout / HEALTH_POLL_SECONDS))):
        if healthy(url):
            return
        if process.wait(HEALTH_POLL_SECONDS) is not None:
            raise StageFailed(f"the Prefect server ended with {process.returncode}:{_last_lines(log)}")
    raise StageFailed(f"the Prefect server at {url} did not answer in {timeout:g} s:{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return "".join(f"\n    {line}" for line in lines) + f"\n    its log: {log}"
