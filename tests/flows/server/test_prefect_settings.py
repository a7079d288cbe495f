"""Wrong settings of Prefect's: one message with the variable's name, from each command that imports Prefect."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server.prefect_settings import check_prefect_settings
from titanflow.common.errors import ConfigError

CHECK = """
from flows.server.prefect_settings import check_prefect_settings
from titanflow.common.errors import ConfigError
try:
    check_prefect_settings()
except ConfigError as error:
    print(error)
"""
ADDRESS = "\n    expected: an address, as http://127.0.0.1:4200/api\n    or unset it to have a server started"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prefect's home and the current folder."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imports(home: Path, **environ: str) -> str:
    """What is told in a process that imports Prefect only then, as all commands do."""
    command = [sys.executable, "-W", "error", "-c", CHECK]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:4200/api", "https://head.example/api", "http://[::1]:4200/api"])
def test_an_address_is_one(home: Path, url: str) -> None:
    with temporary_settings({PREFECT_API_URL: url}):
        check_prefect_settings()


@pytest.mark.parametrize("url", ["foo", "http://", "localhost:4200/api", "http://head:99999/api", "http://[::1/api"])
def test_what_is_no_address_is_refused(home: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(ConfigError) as refused:
        check_prefect_settings()
    assert str(refused.value) == f"PREFECT_API_URL: found {url!r}{ADDRESS}"


def test_a_password_in_it_is_not_told(home: Path) -> None:
    with temporary_settings({PREFECT_API_URL: "ftp://me:secret@head"}), pytest.raises(ConfigError) as refused:
        check_prefect_settings()
    assert "found 'ftp://[redacted]head'" in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PREFECT_LOGGING_LEVEL", "loud", "PREFECT_LOGGING_LEVEL: found 'LOUD': input should be 'DEBUG', 'INFO', "),
        # An older name of PREFECT_SERVER_DATABASE_TIMEOUT.
        (
            "PREFECT_API_DATABASE_TIMEOUT",
            "x",
            "PREFECT_API_DATABASE_TIMEOUT: found 'x': input should be a valid number",
        ),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", "x", "PREFECT_CLIENT_CUSTOM_HEADERS: Prefect refuses its settings: "),
        (
            "PREFECT_API_DATABASE_CONNECTION_URL",
            "postgresql+asyncpg://me:${PREFECT_API_DATABASE_PASSWORD}@head/prefect",
            "value error, database password is None - please set PREFECT_SERVER_DATABASE_PASSWORD",
        ),
    ],
)
def test_a_variable_is_named(home: Path, variable: str, value: str, says: str) -> None:
    assert imports(home, **{variable: value}).startswith(says)


def test_a_wrong_value_in_a_file_is_named(home: Path) -> None:
    (home / "prefect.toml").write_text('[api]\nrequest_timeout = "x"\n', encoding="utf-8")
    said = imports(home)
    assert said.startswith("PREFECT_API_REQUEST_TIMEOUT: found 'x': ")
    assert "it stands in prefect.toml, pyproject.toml or .env of this folder" in said
    profile = 'active = "mine"\n[profiles.mine]\nPREFECT_API_REQUEST_TIMEOUT = "y"\n'
    (home / "prefect.toml").unlink()
    (home / "profiles.toml").write_text(profile, encoding="utf-8")
    assert imports(home).startswith("profiles.toml:3: PREFECT_API_REQUEST_TIMEOUT: found 'y': ")


@pytest.mark.parametrize(
    ("profiles", "says"),
    [
        ("active = \n", "profiles.toml:1: not TOML: Invalid value"),
        ("profiles = 3\n", "profiles.toml:1: profiles: found 3\n    expected: a table of settings"),
        ("[profiles]\nmine = 3\n", "profiles.toml:2: mine: found 3\n    expected: a table of settings"),
        ("# gr\udcf6\n", "profiles.toml:1: not UTF-8"),
        ('active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "f"\n', "profiles.toml:3: PREFECT_API_URL: found 'f'"),
    ],
)
def test_a_line_of_prefect_s_profiles_is_named(home: Path, profiles: str, says: str) -> None:
    (home / "profiles.toml").write_text(profiles, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ConfigError) as refused:
        check_prefect_settings()
    assert str(refused.value).startswith(says)


def test_a_broken_file_of_the_current_folder_is_named(home: Path) -> None:
    (home / "pyproject.toml").write_text("[tool\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^pyproject\.toml:1: not TOML"):
        check_prefect_settings()


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("run", "PREFECT_API_URL"),
        *((command, "PREFECT_LOGGING_LEVEL") for command in ("run", "serve", "prove-resume", "nights --notify")),
    ],
)
def test_each_command_that_imports_prefect_says_so(home: Path, command: str, variable: str) -> None:
    program = [sys.executable, "-m", "titanflow.cli.main", *command.split()]
    done = subprocess.run(program, env={**os.environ, variable: "foo"}, capture_output=True, text=True, check=False)
    assert done.returncode == ConfigError.exit_code, done.stderr
    assert done.stderr.count("error: ") == done.stderr.lower().count(f"error: {variable}: found 'foo'".lower()) == 1
    assert "Traceback" not in done.stderr
    assert list(home.iterdir()) == []
