"""A process that runs a flow and is told to end, with sleeping programs in place of flows."""

import signal
import subprocess
import sys

import pytest
from watching import alive, lines, wait_for

# As Prefect with a server that is gone: handlers of its own, which have the signal sent again and again, and no end.
LINGERS = """
    import signal, subprocess, sys, time
    from flows.interruption import ended_after
    heard = set()
    with ended_after(0.3):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: heard.add(number))
        child = subprocess.Popen(["sleep", "120"], start_new_session=True)
        print(child.pid, flush=True)
        while True:
            time.sleep(0.02)
            for number in [*heard]:
                signal.raise_signal(number)
"""
ENDS = """
    import time
    from flows.interruption import ended_after
    with ended_after(0.1):
        pass
    time.sleep(0.5)
"""
# The proof in its first run, which ends as a run does that its starter stops.
PROVES = """
    import contextlib, sys
    from pathlib import Path
    from types import SimpleNamespace
    from flows import prove_resume
    prove_resume.local_api = lambda: contextlib.nullcontext("http://127.0.0.1:9/api")
    here = Path(sys.argv[1])
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(120)"
    experiment = SimpleNamespace(
        workspace=here,
        plan=lambda side, ranks: SimpleNamespace(folder=here / side, stages=[]),
        command=lambda side, ranks: [sys.executable, "-c", program],
    )
    prove_resume.prove(experiment, kills=1, seed=0)
"""
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.fixture
def start(tmp_path):
    def start(program: str) -> subprocess.Popen:
        path = tmp_path / "program.py"
        path.write_text("if True:" + program)
        return subprocess.Popen([sys.executable, str(path), str(tmp_path)], **PIPES)

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_ends_in_its_time_whatever_handles_the_signal(start, number):
    process = start(LINGERS)
    child = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert process.stderr.read() == ""
    wait_for(lambda: not alive(child), "the end of what it started")


def test_a_run_that_nobody_interrupts_is_left_in_peace(start):
    assert start(ENDS).wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_proof_leaves_no_process(start, tmp_path, number):
    process = start(PROVES)
    (child,) = wait_for(lambda: lines(tmp_path / "uninterrupted.log"), "the first run")
    process.send_signal(number)
    process.wait(30)
    assert not alive(int(child))
