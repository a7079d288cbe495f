import contextlib
import inspect
import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest
from prefect.settings.models.root import Settings
from watching import PATIENCE

from flows.local_run import SERVER_ENV
from flows.server import own_database
from flows.server.server import api_url, free_port, wait_until_healthy
from tasks.process.process import Process


def test_it_answers_and_a_signal_wakes_and_ends_it(tmp_path, prefect_home, monkeypatch):
    """It is the first server of this Prefect, and makes its database by Prefect's migrations."""
    port, log, database = free_port(), tmp_path / "log", tmp_path / "prefect.db"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    env = {"PREFECT_HOME": str(prefect_home), **SERVER_ENV, **own_database.environment(database)}
    with log.open("wb") as output:
        process = Process([sys.executable, "-m", "flows.server.own_server", str(port), str(database)], output, env)
    try:
        wait_until_healthy(process, api_url(port), log, PATIENCE)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM
    finally:
        process.kill()
    assert "Traceback" not in log.read_text()
    (kept,) = (tmp_path / "cache" / "titanflow").iterdir()
    assert schema(kept) == schema(database)
    own_database.make(tmp_path / "the next one's")
    assert (tmp_path / "the next one's").read_bytes() == kept.read_bytes()


def schema(database: Path) -> set[tuple[str, ...]]:
    """The tables and indexes of a database, and the version of its migrations."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found = connection.execute("select type, name, sql from sqlite_master").fetchall()
        assert len(found) > 100
        return {*found, *connection.execute("select 'version', version_num from alembic_version")}


def test_a_database_that_the_user_names_is_not_its_own(monkeypatch):
    for name in ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        monkeypatch.setenv(name, "postgresql+asyncpg://prefect:a-long-one@127.0.0.1:5432/prefect")
    for name, value in own_database.environment(Path("/tmp/own.db")).items():
        monkeypatch.setenv(name, value)
    assert Settings().server.database.connection_url.get_secret_value() == "sqlite+aiosqlite:////tmp/own.db"


@pytest.mark.slow
def test_prefect_has_no_setting_that_would_do_without_its_background_worker():
    # Prefect's server takes seconds to import.
    from docket import Worker
    from prefect.server.api import server
    from prefect.settings.models.server.docket import ServerDocketSettings

    # Where this fails, flows/server/own_server.py may have become needless.
    assert set(ServerDocketSettings.model_fields) == {"name", "url"}
    assert inspect.signature(Worker).parameters["minimum_check_interval"].default.total_seconds() < 1
    for name in ("Docket", "background_worker"):
        assert f"{name}(" in inspect.getsource(server.create_app)
