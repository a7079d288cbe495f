import os
import signal
import sys

import pytest
from watching import STAYS, alive, lines, wait_for

from deployments import supervised
from deployments.supervised import Supervised
from titanflow.common.errors import StageFailed

# A service with a child in a session of its own; it prints both ids.
SERVES = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep({STAYS})"], start_new_session=True)
# In one piece: unbuffered, the parts of a line would be written one by one.
print(f"{{os.getpid()}} {{child.pid}}", flush=True)
time.sleep({STAYS})
"""


@pytest.fixture
def service(tmp_path):
    service = Supervised("worker", [sys.executable, "-c", SERVES], tmp_path / "log", {})
    yield service
    service.stop()


def pids(log, start):
    return [int(pid) for pid in wait_for(lambda: lines(log)[start:], "the service")[0].split()]


def test_what_ends_by_itself_is_started_again_without_what_it_left(service, tmp_path):
    first, child = pids(tmp_path / "log", 0)
    assert service.restart_if_ended() == ""
    os.kill(first, signal.SIGKILL)
    said = wait_for(service.restart_if_ended, "the restart")
    assert said == f"the worker ended with -9 and was started again; its log: {tmp_path / 'log'}"
    assert not alive(child)
    second, child = pids(tmp_path / "log", 1)
    assert service.process.pid == second != first
    service.stop()
    assert not alive(second)
    assert not alive(child)


def test_what_ends_again_and_again_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(supervised, "MOST_RESTARTS", 1)
    service = Supervised("server", [sys.executable, "-c", "import sys; sys.exit(3)"], tmp_path / "log", {})
    wait_for(service.restart_if_ended, "the restart")
    with pytest.raises(StageFailed, match=r"the server ended with 3, 2 times in 10 minutes; its log: .*/log"):
        wait_for(service.restart_if_ended, "the end")


def test_one_that_does_not_come_up_is_stopped(tmp_path):
    def refuse(process):
        refused.append(process.pid)
        raise StageFailed("no answer")

    refused = []
    with pytest.raises(StageFailed, match="no answer"):
        Supervised("server", [sys.executable, "-c", SERVES], tmp_path / "log", {}, is_up=refuse)
    assert not alive(refused[0])
