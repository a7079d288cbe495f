"""The Prefect server of a served machine: one that runs already, or one that ``titanflow serve`` keeps alive."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import prefect

from deployments.database import OwnDatabase
from deployments.supervised import Supervised
from flows.server.configured_server import check_server, configured_url
from flows.server.server import AT_API, STARTUP_SECONDS, api_url, healthy, is_free, wait_until_healthy
from titanflow.common.console import tell
from titanflow.common.errors import ConfigError, Problem, StageFailed

DEFAULT_PORT = 4200
SERVER_ENV = {
    # By default leases are kept in memory: a restart of the server crashes the run that holds one, and never frees its
    # slot.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
}
HERE = ("127.0.0.1", "localhost")
"""The hosts of an address at which a server that listens to this machine alone answers."""
UNKNOWN_MIGRATION = "Can't locate revision identified by"
"""What a Prefect says of a database that a newer one has changed."""
DAMAGED = re.compile("file is not a database|database disk image is malformed")
"""What SQLite says of a file that it can't read."""


def running_server(port: int | None) -> str:
    """The address of a server that runs already: the configured one, or one on this machine."""
    url = configured_url() or api_url(port or DEFAULT_PORT)
    check_server(url, "set PREFECT_API_URL to the server that the runs are on (titanflow serve starts it)")
    return url


@contextlib.contextmanager
def server_or_running_one(port: int | None, logs: Path) -> Iterator[tuple[str, Supervised | None]]:
    """The address of a server that runs already, or of one for the length of the block.

    ``port`` is the one that was asked for. What serves this machine names its address (``PREFECT_API_URL``) to whoever
    uses it, and may be started again by one of them.
    """
    url = configured_url() or api_url(port or DEFAULT_PORT)
    own = own_port(url)
    if own is None or (port and own != port) or healthy(url):
        check_server(url)
        yield url, None
        return
    if not is_free(own):
        raise ConfigError(_taken(own))
    tell(f"starting a Prefect server at {url} …")
    server = _started(url, own, logs)
    try:
        # It may ask for a password that is set for servers alone.
        check_server(url)
        yield url, server
    finally:
        server.stop()


def own_port(url: str) -> int | None:
    """The port of an address at which a server of this machine may be started; None for any other address."""
    try:
        address = urlsplit(url)
        is_own = address.scheme == "http" and address.hostname in HERE and address.path == "/api"
        # It would have no password, which the address has.
        return address.port if is_own and address.username is None else None
    except ValueError:
        return None


def _taken(port: int) -> Problem:
    found = f"port {port} is taken by a program that is no Prefect server, or one that doesn't answer"
    if configured_url():
        hint = "or unset it, and give --port"
        return Problem(
            found, "PREFECT_API_URL", expected=f"an address with a free port, as {api_url(port + 1)}", hint=hint
        )
    return Problem(found, "--port", expected=f"a free port, as --port {port + 1}")


def _started(url: str, port: int, logs: Path) -> Supervised:
    """The server, on a database of its own."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HERE[0], "--port", str(port)]
    log, database = logs / "server.log", OwnDatabase(logs)
    # The server makes the links in notifications, and its page asks port 4200 unless told otherwise.
    env = {**SERVER_ENV, **AT_API, "PREFECT_UI_URL": url.removesuffix("/api"), "PREFECT_SERVER_UI_API_URL": url}
    env |= database.environment

    def start() -> Supervised:
        return Supervised(
            "server", command, log, env, is_up=lambda process: wait_until_healthy(process, url, log, STARTUP_SECONDS)
        )

    if said := database.take_over():
        tell(said)
    try:
        return start()
    except StageFailed as failed:
        said = log.read_text(encoding="utf-8", errors="replace")
        if UNKNOWN_MIGRATION in said:
            why, remedy = f"was changed by a newer Prefect than {prefect.__version__}", "that Prefect"
        elif damaged := DAMAGED.search(said):
            why, remedy = f"is damaged ({damaged[0]})", "a copy of it from before"
        else:
            raise
        if not database.is_copied:
            raise ConfigError(_unreadable(database, f"the served database {why}; its log: {log}", remedy)) from failed
    tell(database.begin_empty(why))
    return start()


def _unreadable(database: OwnDatabase, found: str, remedy: str) -> Problem:
    if database.is_named:
        key = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
        return Problem(found, key, expected=f"{remedy}, or another database")
    hint = f"without {database.path} it begins empty: no runs, no edits of the deployments, no blocks"
    expected = f"{remedy}, or a folder of its own: PREFECT_HOME=…"
    return Problem(found, str(database.path), expected=expected, hint=hint)
