import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.stage_pool import running_server
from flows.server.server import free_port
from titanflow.common.errors import ConfigError


def test_the_server_of_the_runs_has_to_be_there():
    port = free_port()
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(ConfigError) as error:
        running_server(port)
    assert f"nothing answers at http://127.0.0.1:{port}/api" in str(error.value)
    nowhere = f"http://127.0.0.1:{port}/else/api"
    with temporary_settings({PREFECT_API_URL: nowhere}), pytest.raises(ConfigError, match="/else/api"):
        running_server(free_port())
