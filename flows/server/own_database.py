"""The database of a run's own Prefect server, which begins empty and goes with the run.

The user's database, ``~/.prefect/prefect.db``, belongs to the user's own Prefect, which may be an older or a newer one.
Prefect makes a database by all of its migrations, which takes seconds. So the first server of a Prefect's version keeps
a copy of its empty database, and the others begin with that.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

from titanflow.common.files import hidden_sibling
from titanflow.files.caches import cache_folder


def environment(database: Path) -> dict[str, str]:
    """What a server's environment says of its database, whatever the user's says of another one."""
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_API_DATABASE_MIGRATE_ON_START": "0",
    }


def make(database: Path) -> None:
    """Makes the tables of the file ``database``, in the process with its :func:`environment`."""
    try:
        copy_kept(database)
    except OSError:
        from prefect.server.database import provide_database_interface

        asyncio.run(provide_database_interface().create_db())
        # Where nothing can be kept the next server makes its tables itself.
        with contextlib.suppress(OSError, sqlite3.Error):
            _keep(database)


def copy_kept(database: Path) -> None:
    """Copies the empty database that was kept.

    Raises:
        OSError: none was kept yet, or it can't be copied.
    """
    shutil.copyfile(_kept(), database)


def _kept() -> Path:
    return cache_folder() / f"prefect-{version('prefect')}.db"


def _keep(database: Path) -> None:
    template = _kept()
    template.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden_sibling(template)
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("VACUUM INTO ?", [str(temporary)])
        temporary.replace(template)
    finally:
        temporary.unlink(missing_ok=True)
