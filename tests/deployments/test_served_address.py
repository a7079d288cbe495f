"""Which server a served machine uses, and when it starts one."""

import functools
import os
import socket
import tempfile
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from typer.testing import CliRunner

from deployments import server
from deployments.serve import alone, check_prefect_home, logs_of, welcome
from deployments.server import DEFAULT_PORT, own_port, running_server, server_or_running_one
from deployments.work_pool import POOL
from flows.server.server import api_url, free_port
from titanflow.cli.main import app
from titanflow.common.errors import ConfigError


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
        ("http://localhost:4300/api", 4300),
        ("http://me:secret@localhost:4300/api", None),
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


def test_a_second_one_in_its_home_is_refused_as_long_as_the_first_runs(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path}):
        with alone(logs_of(None)) as logs:
            says = rf"^{logs}: titanflow serve runs already: process {os.getpid()} on .*\n.*--limit .* PREFECT_HOME"
            with pytest.raises(ConfigError, match=says), alone(logs):
                pass
            # Several machines may have one home.
            with alone(logs_of("small")) as others:
                assert others == logs / "small" / socket.gethostname()
        with alone(logs):
            pass


def test_a_taken_port_is_told_with_what_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "healthy", functools.partial(server.healthy, timeout=0.1))
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        # The listener takes the connection, and nobody ever answers.
        for named, says in (
            (api_url(port) + "/", f"PREFECT_API_URL: port {port} is taken .*\n.* as {api_url(port + 1)}\n.*unset it"),
            (None, f"--port: port {port} is taken .*\n    expected: a free port, as --port {port + 1}"),
        ):
            refused = pytest.raises(ConfigError, match=says)
            with temporary_settings({PREFECT_API_URL: named}), refused, server_or_running_one(port, tmp_path):
                pass


def test_a_server_that_does_not_let_this_client_in_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = []

    class Answers:
        def __init__(self, *arguments: object, **options: object) -> None:
            pass

        def stop(self) -> None:
            stopped.append(self)

    def refuses(url: str) -> None:
        raise ConfigError(f"{url} doesn't let this client in")

    monkeypatch.setattr(server, "Supervised", Answers)
    monkeypatch.setattr(server, "check_server", refuses)
    refused = pytest.raises(ConfigError, match="doesn't let this client in")
    own = temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults={PREFECT_API_URL})
    with own, refused, server_or_running_one(free_port(), tmp_path):
        pass
    assert len(stopped) == 1


def test_a_password_in_the_address_is_not_printed() -> None:
    said = welcome("http://me:secret@head:4200/api", Path(tempfile.gettempdir()), [])
    assert "secret" not in said
    assert "http://[redacted]head:4200\n" not in said
    assert "http://[redacted]head:4200 " in said


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
    done = CliRunner().invoke(app, ["serve", option, value])
    assert done.exit_code == ConfigError.exit_code
    assert option in done.output
    assert bound in done.output


def test_the_help_names_the_port_and_the_pool_that_there_are_without_a_word() -> None:
    said = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["serve", "--help"]).output
    assert f"by default {DEFAULT_PORT}." in said
    assert f"for whole runs ({POOL})" in said


def test_a_machine_that_only_works_says_nothing_of_configs() -> None:
    done = CliRunner().invoke(app, ["serve", "--pool", "titanflow", "--configs", "mine"])
    assert done.exit_code == ConfigError.exit_code
    assert "--configs: found mine\n    expected: no --pool\n" in done.stderr


def test_whoever_has_a_proxy_is_told_how_to_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert "\n  export NO_PROXY=127.0.0.1\n" in welcome(api_url(4200), Path(tempfile.gettempdir()), [])
    monkeypatch.delenv("NO_PROXY")
    assert "NO_PROXY" not in welcome(api_url(4200), Path(tempfile.gettempdir()), [])
