"""A served machine for the deployments' tests."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from tiny_experiment import leave_out_fine_tuning, write_tiny_experiment
from watching import PATIENCE, alive, wait_for

from flows.server.server import api_url, free_port


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the image out unless it is asked for."""
    if not config.getoption("--image"):
        for item in items:
            if item.get_closest_marker("image"):
                item.add_marker(pytest.mark.skip(reason="builds an image of some GB: make image-test does"))


@dataclass
class Served:
    """A running ``titanflow serve``."""

    process: subprocess.Popen
    url: str
    output: Path
    home: Path
    workspace: Path
    env: dict[str, str]

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Prefect's command line against it."""
        command = [sys.executable, "-m", "prefect", *arguments]
        env = {**os.environ, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.home)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=5 * PATIENCE, check=False)

    def stop(self) -> list[psutil.Process]:
        """Stops it as a terminal or an init system does; returns what it had started and left behind."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        return [process for process in family if alive(process.pid)]


def newer_database(path: Path) -> None:
    """A database of another Prefect, which no migration here leads to."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("create table alembic_version (version_num varchar(32) not null)")
        database.execute("insert into alembic_version values ('of_a_newer_one')")
        database.commit()


@pytest.fixture(scope="module")
def tiny_configs(tmp_path_factory):
    """An experiment of three stages, one of them a training: a served run asks for no more."""
    return leave_out_fine_tuning(write_tiny_experiment(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Served where much stands in the way: a dead proxy with exceptions that httpx can't read, a poor locale, a folder
    whose name that locale lacks, no home folder, its own address as that of another server, another server's path, and
    a database that a newer Prefect has changed."""
    home = tmp_path_factory.mktemp("served")
    port = free_port()
    output = home / "output"
    (home / "file").touch()
    (home / "tmp").mkdir()
    workspace = home / "größe"
    workspace.mkdir()
    newer_database(home / "prefect.db")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    env |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    env |= {"HOME": str(home / "file" / "home"), "TMPDIR": str(home / "tmp"), "PREFECT_HOME": str(home)}
    env |= {"NO_PROXY": "[::1],fe80::/10", "PREFECT_SERVER_API_BASE_PATH": "/team/api"}
    env |= {"PREFECT_API_URL": f"{api_url(port)}/", "OMP_NUM_THREADS": "1"}
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "titanflow.cli.main", "serve"],
            env=env,
            cwd=workspace,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    served = Served(process, api_url(port), output, home, workspace, env)
    try:
        wait_for(
            lambda: process.poll() is not None or "^C" in output.read_text("latin-1"),
            "the server",
            patience=2 * PATIENCE,
        )
        assert process.poll() is None, output.read_text("latin-1")
        with temporary_settings({PREFECT_API_URL: served.url}):
            yield served
    finally:
        if process.poll() is None:
            served.stop()
