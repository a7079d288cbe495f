"""A whole Prefect server for tests of what a run's own server leaves out: automations and work pools."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from prefect.settings import PREFECT_API_URL, PREFECT_HOME, get_current_settings, temporary_settings

from flows.local_run import SERVER_ENV
from flows.server import own_database
from flows.server.server import api_url, free_port, running_server

TRIGGERS = "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED"


@contextlib.contextmanager
def lasting_server(prefect_home: Path) -> Iterator[str]:
    """Its address, which is also the configured one for as long as the block lasts."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--lifespan", "on"]
    if not (prefect_home / "prefect.db").exists():
        # All migrations take almost half of a first start.
        with contextlib.suppress(OSError):
            own_database.copy_kept(prefect_home / "prefect.db")
    with temporary_settings({PREFECT_HOME: prefect_home, PREFECT_API_URL: api_url(port)}):
        env = get_current_settings().to_environment_variables(exclude_unset=True)
        with running_server(command, api_url(port), env | SERVER_ENV | {TRIGGERS: "1"}) as url:
            yield url
