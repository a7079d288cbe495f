"""A stage that reads its rows from each machine's own disk."""

import pytest
from tiny_stages import records

from titanflow.data.local_copy import COPY_FILE
from titanflow.runs.errors import StageError

pytestmark = pytest.mark.slow

SHORT = {
    "training": {"steps": 4, "local_batch_size": 4},
    "validation": {"enable": True, "freq": 2, "local_batch_size": 4},
}


def test_losses_are_those_of_the_shared_rows_to_the_bit(bench, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    local = bench.stage("local", SHORT, {"launcher": {"local_data": "$DISK_OF_NODE/rows"}})
    shared = bench.stage("shared", SHORT)
    # A node may have no home folder that can be written to.
    env = {"DISK_OF_NODE": str(disk), "HOME": "/proc/none"}
    assert bench.run(local, ranks=2, env=env) == 0, (local.folder / "log.txt").read_text()
    assert bench.run(shared, ranks=2) == 0, (shared.folder / "log.txt").read_text()
    assert sorted(path.parent.name.rpartition("-")[0] for path in disk.glob(f"rows/*/{COPY_FILE}")) == [
        "train",
        "validation",
    ]
    said = (local.folder / "log.txt").read_text()
    assert said.count("train: ") == 1
    assert "Ranks: 0-1 on" in said
    for key in ("loss", "validation_loss"):
        assert records(local, key) == records(shared, key)
    assert len(records(local)) == 4


def test_a_machine_without_the_disk_is_named(bench):
    run = bench.stage("nowhere", SHORT, {"launcher": {"local_data": "$NO_SUCH_DISK"}})
    assert bench.run(run) == 2
    error = StageError.of(run.folder)
    assert error is not None
    assert "launcher.local_data: found '$NO_SUCH_DISK': no such variable on" in error.message
    assert not (run.folder / "checkpoint").exists()
