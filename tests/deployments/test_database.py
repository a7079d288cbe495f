"""The database of a served machine, beside one that was served before, or that a newer Prefect has changed."""

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import prefect
import pytest
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    temporary_settings,
)

from deployments import server as module
from deployments.database import OwnDatabase
from deployments.server import DAMAGED, UNKNOWN_MIGRATION, server_or_running_one
from flows.server.server import free_port
from titanflow.common.errors import ConfigError, StageFailed


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Prefect's home; the logs and the database of ``serve`` are in its folder ``titanflow``."""
    (tmp_path / "titanflow").mkdir()
    with temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults={PREFECT_API_URL}):
        yield tmp_path


def user_database(home: Path, flow: str) -> Path:
    """The database in Prefect's home, with a deployment of a flow; as small as can be."""
    path = home / "prefect.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("create table flow (id, name)")
        database.execute("create table deployment (flow_id, name)")
        database.execute("insert into flow values (1, ?)", [flow])
        database.execute("insert into deployment values (1, 'on-demand')")
        database.commit()
    return path


def test_a_database_that_was_served_is_copied_once_and_stays(home: Path) -> None:
    before = user_database(home, "pretrain-sft")
    content = before.read_bytes()
    database = OwnDatabase(home / "titanflow")
    said = f"the runs, deployments and blocks in {before} are copied to {home}/titanflow/prefect.db; "
    assert database.take_over().startswith(said)
    with contextlib.closing(sqlite3.connect(database.path)) as copy:
        assert copy.execute("select name from deployment").fetchall() == [("on-demand",)]
    assert before.read_bytes() == content
    assert OwnDatabase(home / "titanflow").take_over() == ""
    assert database.environment == {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/titanflow/prefect.db"
    }


@pytest.mark.parametrize("flow", ["another-project-s", None])
def test_a_database_that_was_never_served_is_left_alone(home: Path, flow: str | None) -> None:
    if flow:
        user_database(home, flow)
    else:
        (home / "prefect.db").write_bytes(b"no database, as long as it may be")
    assert OwnDatabase(home / "titanflow").take_over() == ""
    assert list((home / "titanflow").iterdir()) == []


def test_a_database_that_the_user_names_is_used(home: Path) -> None:
    user_database(home, "pretrain-sft")
    named = "postgresql+asyncpg://prefect:a-long-one@127.0.0.1:5432/prefect"
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: named}):
        database = OwnDatabase(home / "titanflow")
        assert (database.take_over(), database.environment) == ("", {})


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each start of a server says as it ends; a start without a word is taken for one that answers."""
    says: list[str] = []

    class Says(module.Supervised):
        def __init__(self, kind, command, log, env, is_up):
            ends = f"import sys; sys.exit({says.pop(0)!r})" if says else ""
            up = {"is_up": is_up} if ends else {}
            super().__init__(kind, [sys.executable, "-c", ends or "input()"], log, env, **up)

    monkeypatch.setattr(module, "Supervised", Says)
    monkeypatch.setattr(module, "check_server", lambda url: None)
    return says


def test_the_words_of_a_database_that_can_not_be_read_are_those_of_the_libraries(home: Path) -> None:
    (home / "versions").mkdir()
    with pytest.raises(CommandError, match=UNKNOWN_MIGRATION):
        ScriptDirectory(str(home)).get_revision("ffff")
    (home / "garbage.db").write_bytes(bytes(range(256)) * 32)
    with contextlib.closing(sqlite3.connect(home / "garbage.db")) as garbage, pytest.raises(sqlite3.DatabaseError) as e:
        garbage.execute("select * from sqlite_master")
    assert DAMAGED.search(str(e.value))


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (f"{UNKNOWN_MIGRATION} 'ffff'", f"was changed by a newer Prefect than {prefect.__version__}"),
        ("database disk image is malformed", "is damaged (database disk image is malformed)"),
    ],
)
def test_a_served_database_that_can_not_be_read_is_left_alone_with_a_word(
    home: Path, starts: list[str], capsys: pytest.CaptureFixture[str], says: str, why: str
) -> None:
    before = user_database(home, "pretrain-sft")
    starts.append(says)
    with server_or_running_one(free_port(), home / "titanflow") as (_, server):
        assert server is not None
    said = capsys.readouterr().out
    assert f"{before} {why}: it stays as it is, and {home}/titanflow/prefect.db begins empty" in said
    assert before.exists()
    assert not (home / "titanflow" / "prefect.db").exists()


def test_its_own_database_is_never_replaced(home: Path, starts: list[str]) -> None:
    user_database(home, "pretrain-sft").rename(home / "titanflow" / "prefect.db")
    for says, why in (
        (f"{UNKNOWN_MIGRATION} 'f'", "was changed by a newer Prefect"),
        ("is not a database", "is damaged"),
    ):
        starts.append(f"file {says}")
        matched = rf"^{home}/titanflow/prefect.db: the served database {why} .*; its log: "
        with pytest.raises(ConfigError, match=matched) as error, server_or_running_one(free_port(), home / "titanflow"):
            pass
        assert "without" in str(error.value)
    assert (home / "titanflow" / "prefect.db").exists()
    starts.append("no disk")
    with pytest.raises(StageFailed, match="no disk"), server_or_running_one(free_port(), home / "titanflow"):
        pass
