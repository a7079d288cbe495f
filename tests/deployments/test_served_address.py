"""Which server a served machine uses, and when it starts one."""

import sys
import tempfile
from pathlib import Path

import pytest
import typer
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from typer.testing import CliRunner

from deployments import server as module
from deployments.serve import check_prefect_home, main, welcome
from deployments.server import UNKNOWN_MIGRATION, own_port, running_server, server_or_running_one
from flows.server.server import api_url, free_port
from titanflow.common.errors import ConfigError, StageFailed


def test_the_server_of_the_runs_has_to_be_there() -> None:
    port = free_port()
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(ConfigError) as error:
        running_server(port)
    assert f"nothing answers at http://127.0.0.1:{port}/api" in str(error.value)
    nowhere = f"http://127.0.0.1:{port}/else/api"
    with temporary_settings({PREFECT_API_URL: nowhere}), pytest.raises(ConfigError, match="/else/api"):
        running_server(free_port())


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://127.0.0.1:4300/api", 4300),
        ("http://localhost:4300/api/", 4300),
        ("https://localhost:4300/api", None),
        ("http://localhost/api", None),
        ("http://localhost:4300/else/api", None),
        ("http://head:4300/api", None),
        ("http://localhost:99999/api", None),
        ("http://[::1/api", None),
        ("here", None),
    ],
)
def test_at_which_addresses_a_server_is_started(url: str, port: int | None) -> None:
    assert own_port(url) == port


@pytest.mark.parametrize(("url", "asked"), [("http://head.example:{port}/api", None), (api_url(1), 2)])
def test_at_another_address_none_is_started(url: str, asked: int | None, tmp_path: Path) -> None:
    named = url.format(port=free_port())
    refused = pytest.raises(ConfigError, match=f"nothing answers at {named}")
    with temporary_settings({PREFECT_API_URL: named}), refused, server_or_running_one(asked, tmp_path):
        pass


def test_the_database_of_a_newer_prefect_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "versions").mkdir()
    with pytest.raises(CommandError, match=UNKNOWN_MIGRATION):
        ScriptDirectory(str(tmp_path)).get_revision("ffff")
    say = [sys.executable, "-c", f"import sys; sys.exit({UNKNOWN_MIGRATION + ' ffff'!r})"]

    class Says(module.Supervised):
        def __init__(self, kind, command, log, env, is_up):
            super().__init__(kind, say, log, env, is_up=is_up)

    monkeypatch.setattr(module, "Supervised", Says)
    newer = pytest.raises(ConfigError, match=r"^PREFECT_HOME: a newer Prefect than .*; its log: ")
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        with newer as refused, server_or_running_one(free_port(), tmp_path):
            pass
        assert f"{tmp_path / 'server.log'}\n" in str(refused.value)
        assert (tmp_path / "server.log").exists()
        say[-1] = "import sys; sys.exit('no disk')"
        with pytest.raises(StageFailed, match="no disk"), server_or_running_one(free_port(), tmp_path):
            pass


def test_a_home_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(ConfigError, match=r"PREFECT_HOME: .*/file/\.prefect can't be written\n.*PREFECT_HOME=…")
    with temporary_settings({PREFECT_HOME: tmp_path / "file" / ".prefect"}), refused:
        check_prefect_home()
    with temporary_settings({PREFECT_HOME: tmp_path / "not made yet"}):
        check_prefect_home()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [("--port", "99999", "65535"), ("--port", "0", "1"), ("--limit", "0", "1"), ("--limit", "-3", "1")],
)
def test_numbers_have_bounds(option: str, value: str, bound: str) -> None:
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, [option, value])
    assert done.exit_code == ConfigError.exit_code
    assert option in done.output
    assert f"equal to {bound}" in done.output


def test_whoever_has_a_proxy_is_told_how_to_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert "\n  export NO_PROXY=127.0.0.1\n" in welcome(api_url(4200), Path(tempfile.gettempdir()), "nightly")
    monkeypatch.delenv("NO_PROXY")
    assert "NO_PROXY" not in welcome(api_url(4200), Path(tempfile.gettempdir()), "nightly")
