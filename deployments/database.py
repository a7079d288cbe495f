"""The database of a served machine: a file of its own below ``PREFECT_HOME``, which no other Prefect changes.

The user's, ``prefect.db`` in that folder, belongs to whatever Prefect the user has, which may be a newer one: it
changes the tables, and this one can't read them any more. A database that was served before is copied once.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from prefect.settings import PREFECT_HOME, PREFECT_SERVER_DATABASE_CONNECTION_URL

from deployments.deployed import FLOW
from titanflow.common.files import hidden_sibling

NAME = "prefect.db"
SERVED = "select 1 from deployment join flow on flow.id = deployment.flow_id where flow.name = ?"
SQLITE = "sqlite+aiosqlite:///"


class OwnDatabase:
    """The database in ``folder`` that a served machine keeps; none where the user names another (:attr:`is_named`)."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.before = Path(PREFECT_HOME.value(), NAME)
        self.is_copied = False

    @property
    def is_named(self) -> bool:
        """Whether the user's settings name a database."""
        return _named() not in ("", f"{SQLITE}{self.before}")

    @property
    def environment(self) -> dict[str, str]:
        """What the server's environment says of it."""
        return {} if self.is_named else {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"{SQLITE}{self.path}"}

    def take_over(self) -> str:
        """Copies the database that was served before there was this one; says so, or nothing."""
        if self.is_named or self.path.exists() or not _was_served(self.before):
            return ""
        temporary = hidden_sibling(self.path)
        try:
            with contextlib.closing(_read_only(self.before)) as source, contextlib.closing(_open(temporary)) as copy:
                source.backup(copy)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self.is_copied = True
        return (
            f"the runs, deployments and blocks in {self.before} are copied to {self.path}; from now on they count here"
        )

    def begin_empty(self, why: str) -> str:
        """Removes a copy that this Prefect can't read, and says ``why``: what its original was or is."""
        for path in self.path.parent.glob(f"{NAME}*"):
            path.unlink()
        self.is_copied = False
        return f"{self.before} {why}: it stays as it is, and {self.path} begins empty"


def _named() -> str:
    value = PREFECT_SERVER_DATABASE_CONNECTION_URL.value()
    return "" if value is None else str(getattr(value, "get_secret_value", lambda: value)())


def _was_served(database: Path) -> bool:
    """Whether a database has deployments of this project's."""
    try:
        with contextlib.closing(_read_only(database)) as connection:
            return connection.execute(SERVED, [FLOW]).fetchone() is not None
    except sqlite3.Error:
        return False


def _read_only(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(database)
