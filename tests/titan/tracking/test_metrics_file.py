import errno
import os
from pathlib import Path

import pytest

from titan.tracking.metrics_file import MetricsFile
from titanflow.common.errors import StageFailed


def test_a_record_is_there_as_soon_as_it_is_appended(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    assert file.records() == []
    file.append({"step": 1, "loss": 2.5})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 2.5}\n'


def test_a_half_written_line_is_no_record_and_goes_with_the_next_cut(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        file.append({"step": step})
    with file.path.open("a") as torn:
        torn.write('{"step": 6, "lo')
    assert [record["step"] for record in file.records()] == [1, 2, 3, 4, 5]
    assert file.keep(lambda record: record["step"] <= 3) == [{"step": 1}, {"step": 2}, {"step": 3}]
    file.append({"step": 4})
    assert [record["step"] for record in file.records()] == [1, 2, 3, 4]


def test_a_garbled_line_ends_no_training_and_goes_with_the_next_cut(tmp_path):
    """As a machine leaves it that lost its power: the file is as long as it was, and part of it is zeros."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.path.write_bytes(b'{"step": 1}\n{"step": \0\0\0\n{"step": 3}\n')
    assert file.keep(lambda record: True) == [{"step": 1}, {"step": 3}]
    assert file.path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_what_json_lacks_is_refused(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        file.append({"loss": float("nan")})
    assert not file.path.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_named():
    with pytest.raises(StageFailed, match=f"/dev/full: can't be written: .*{os.strerror(errno.ENOSPC)}"):
        MetricsFile("/dev/full").append({"step": 1})
