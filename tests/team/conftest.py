"""One team for the whole session; opt-in, since it starts a database, a server and three workers."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hosts import PASSWORD, why_no_hosts
from local_postgres import why_no_postgres
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from team import Team, a_team


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the team's tests out unless they are asked for, and where none can be started."""
    wanted = config.getoption("--team")
    reason = why_no_postgres() or why_no_hosts() if wanted else "starts PostgreSQL and three workers: make team-test"
    for item in items:
        if item.get_closest_marker("team") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with a_team(tmp_path_factory.mktemp("team"), _client) as team:
        yield team


@contextmanager
def _client(url: str) -> Iterator[SyncPrefectClient]:
    with (
        temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: PASSWORD}),
        get_client(sync_client=True) as client,
    ):
        yield client
