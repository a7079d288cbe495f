"""A PostgreSQL of Debian's on a port of its own, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.server.server import free_port

INSTALLED = Path("/usr/lib/postgresql")
"""Debian keeps the programs of each release outside of PATH: ``/usr/lib/postgresql/15/bin``."""
USER = "postgres"
# Nothing here need outlast a loss of power.
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=127.0.0.1")


def programs() -> Path | None:
    """The folder of the newest release's programs; None if there is none."""
    found = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def why_no_postgres() -> str:
    """Why no PostgreSQL can be started here; empty if one can."""
    if programs() is None:
        return "not installed: postgresql (apt-get install postgresql)"
    if os.geteuid() == 0 and not shutil.which("runuser"):
        return "not installed: runuser, as PostgreSQL doesn't run as root"
    return ""


@contextlib.contextmanager
def local_postgres() -> Iterator[str]:
    """The address of an empty database, as Prefect's server takes it."""
    place = programs()
    assert place is not None
    # Not below pytest's folder, into which only its user may look.
    with tempfile.TemporaryDirectory(prefix="titanflow-postgres-") as name:
        folder = Path(name)
        password, port = secrets.token_hex(8), free_port()
        (folder / "password").write_text(password)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, USER)
        data = str(folder / "data")
        login = ["--username=prefect", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        _run([place / "initdb", "--pgdata", data, *login, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, f"unix_socket_directories={folder}"))
        control = [place / "pg_ctl", "--pgdata", data, "--silent", "--wait"]
        _run([*control, "--log", str(folder / "log"), "--options", f"-p {port} {options}", "start"])
        try:
            yield f"postgresql+asyncpg://prefect:{password}@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "--mode=immediate", "stop"])


def _run(command: Sequence[str | Path]) -> None:
    as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*as_user, *map(str, command)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
