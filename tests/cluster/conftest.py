"""One cluster for the whole session; opt-in, since it takes the machine's network namespaces and some minutes."""

from collections.abc import Iterator

import pytest
from local_slurm import LocalSlurm, why_not


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the cluster's tests out unless they are asked for, and where none can be started."""
    wanted = config.getoption("--cluster")
    reason = why_not() if wanted else "starts a Slurm of two nodes: make cluster-test runs it"
    for item in items:
        if item.get_closest_marker("cluster") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSlurm]:
    """Two idle nodes."""
    cluster = LocalSlurm(tmp_path_factory.mktemp("slurm"))
    cluster.start()
    yield cluster
    cluster.stop()
