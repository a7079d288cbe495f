"""What starts ``serve`` with a machine: systemd's unit, and compose's file."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployments.flow_runs.planned_stop import SAVE_SECONDS
from deployments.server import SERVER_ENV
from tasks.process.process import GRACE_SECONDS

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
UNIT = (DEPLOYMENTS / "titanflow.service").read_text()
COMPOSE = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())["services"]
STOP_SECONDS = SAVE_SECONDS + 2 * GRACE_SECONDS
"""The runs, then the worker, then the server."""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze: Debian's systemd")
@pytest.mark.parametrize(("mode", "said"), [("mixed", ""), ("mixd", "Failed to parse kill mode")])
def test_systemd_finds_nothing_but_what_is_planted(mode: str, said: str, tmp_path: Path) -> None:
    here = UNIT.replace("/srv/titanflow/.venv/bin/titanflow", sys.executable).replace("/srv/titanflow", str(tmp_path))
    unit = tmp_path / "titanflow.service"
    unit.write_text(here.replace("User=titanflow", "User=root").replace("KillMode=mixed", f"KillMode={mode}"))
    found = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert said in found.stderr
    assert bool(said) == bool(found.stderr)


def test_a_stop_by_systemd_leaves_serve_the_time_and_the_server_that_it_needs() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string(UNIT)
    service = unit["Service"]
    assert service["KillMode"] == "mixed"
    assert float(service["TimeoutStopSec"]) > STOP_SECONDS
    assert service["RestartPreventExitStatus"] == "2"


def test_compose_has_serve_s_server_and_stops_it_last() -> None:
    server, worker = COMPOSE["server"], COMPOSE["worker"]
    assert SERVER_ENV.items() <= server["environment"].items()
    assert worker["environment"]["PREFECT_API_URL"] == "http://server:4200/api"
    assert list(worker["depends_on"]) == ["server"]
    assert worker["stop_grace_period"] == "2m"
    assert STOP_SECONDS < 120
    assert worker["hostname"]
    assert server["ports"] == ["127.0.0.1:4200:4200"]
