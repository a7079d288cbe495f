import json
import os
from pathlib import Path

import pytest
from watching import wait_for

from flows import sign_of_life as module
from flows.sign_of_life import HOLDER_FILE, Watch, sign_of_life


def of_another_machine(folder: Path, beat: int = 0, job: str | None = None) -> None:
    holder = {"machine": "another", "host": "login2", "pid": 12, "job": job, "beat": beat}
    (folder / HOLDER_FILE).write_text(json.dumps(holder))


def test_a_holder_elsewhere_is_named_for_as_long_as_its_number_changes(tmp_path: Path, monkeypatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    watch = Watch(tmp_path / HOLDER_FILE, dead=150)
    for beat in range(5):
        of_another_machine(tmp_path, beat)
        assert watch.holder() == "process 12 on login2"
        now[0] += 149
    assert watch.holder() == "process 12 on login2"
    now[0] += 1
    assert watch.holder() == ""


def test_the_clock_of_the_other_machine_does_not_count(tmp_path: Path) -> None:
    of_another_machine(tmp_path, job="77")
    path = tmp_path / HOLDER_FILE

    os.utime(path, (0, 0))
    assert Watch(tmp_path / HOLDER_FILE).holder() == "process 12 on login2, job 77"


@pytest.mark.parametrize("text", ["", "{", None])
def test_a_folder_without_a_readable_sign_is_free(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / HOLDER_FILE).write_text(text)
    assert Watch(tmp_path / HOLDER_FILE).holder() == ""


def test_of_this_machine_the_lock_tells(tmp_path: Path) -> None:
    with sign_of_life(tmp_path / HOLDER_FILE):
        assert Watch(tmp_path / HOLDER_FILE).holder() == ""


def test_another_machine_sees_it_change_and_go(tmp_path: Path, monkeypatch) -> None:
    with sign_of_life(tmp_path / HOLDER_FILE, beat=0.01):
        monkeypatch.setattr(module, "machine", lambda: "another")
        first = (tmp_path / HOLDER_FILE).read_text()
        wait_for(lambda: (tmp_path / HOLDER_FILE).read_text() != first, "another number")
        assert Watch(tmp_path / HOLDER_FILE).holder().startswith("process ")
    assert Watch(tmp_path / HOLDER_FILE).holder() == ""
    assert list(tmp_path.iterdir()) == []
