"""One cluster for the whole session; opt-in, since it takes the machine's network namespaces and some minutes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_table import RECORD, Record
from local_slurm import LocalSlurm, why_not


def pytest_configure(config: pytest.Config) -> None:
    """Holds what the session finds."""
    config.stash[RECORD] = Record()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the cluster's tests out unless they are asked for, and where none can be started."""
    for marker in ("cluster", "cluster_matrix"):
        wanted = config.getoption(f"--{marker.replace('_', '-')}")
        target = "cluster-matrix" if marker == "cluster_matrix" else "cluster-test"
        reason = why_not() if wanted else f"starts a Slurm of two nodes: make {target} runs it"
        for item in items:
            if item.get_closest_marker(marker) and reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Writes what was found so far, where that is asked for: a session takes an hour, and may be broken off."""
    record, wanted = item.config.stash[RECORD], item.config.getoption("--cluster-table")
    if wanted and (record.rows or record.kills):
        record.write(Path(wanted), ["pytest", *sys.argv[1:]])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints what was found."""
    record = config.stash[RECORD]
    for row in record.rows:
        terminalreporter.write_line(" | ".join(vars(row).values()))
    for line in record.kills:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSlurm]:
    """Two idle nodes."""
    cluster = LocalSlurm(tmp_path_factory.mktemp("slurm"))
    cluster.start()
    yield cluster
    cluster.stop()
