"""A process that runs a flow and is told to end, with sleeping programs in place of flows."""

import os
import signal
import subprocess
import sys

import pytest
from watching import PATIENCE, STAYS, alive, lines, wait_for

# As Prefect with a server that is gone: handlers of its own, which have the signal sent again and again, and no end.
LINGERS = f"""
    import signal, subprocess, sys, time
    from flows.interruption.by_signal import ended_after
    heard = set()
    with ended_after(0.3):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: heard.add(number))
        child = subprocess.Popen(["sleep", "{STAYS}"], start_new_session=True)
        print(child.pid, flush=True)
        while True:
            time.sleep(0.02)
            for number in [*heard]:
                signal.raise_signal(number)
"""
# After the block it waits for what would have ended it.
ENDS = """
    import threading
    from flows.interruption.by_signal import ended_after
    with ended_after(0.0):
        (waits,) = [thread for thread in threading.enumerate() if thread.name == "ended-after"]
    waits.join()
"""
# The proof in its first run, which ends as a run does that its starter stops.
PROVES = f"""
    import contextlib, sys
    from pathlib import Path
    from types import SimpleNamespace
    from flows.resume_proof import prove_resume
    prove_resume.local_api = lambda: contextlib.nullcontext("http://127.0.0.1:9/api")
    here = Path(sys.argv[1])
    program = "import os, time; print(os.getpid(), flush=True); time.sleep({STAYS})"
    experiment = SimpleNamespace(
        workspace=here,
        fewer=(),
        plan=lambda side, ranks: SimpleNamespace(folder=here / side, stages=[]),
        command=lambda side, ranks: [sys.executable, "-c", program],
    )
    prove_resume.prove(experiment, kills=1, seed=0)
"""
# A program that cleans up when it is told to end, and says so.
CLEANS = f"""
    import signal, sys, time
    from pathlib import Path
    from flows.interruption.by_signal import sigterm_as_exit
    with sigterm_as_exit():
        try:
            (Path(sys.argv[1]) / "began").touch()
            time.sleep({STAYS})
        finally:
            print("cleaning up", flush=True)
            (Path(sys.argv[1]) / "cleaned").touch()
"""
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.fixture
def start(tmp_path):
    started = []

    def start(program: str, **options) -> subprocess.Popen:
        path = tmp_path / "program.py"
        path.write_text("if True:" + program)
        started.append(subprocess.Popen([sys.executable, str(path), str(tmp_path)], **{**PIPES, **options}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_ends_in_its_time_whatever_handles_the_signal(start, number):
    process = start(LINGERS)
    child = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    assert process.stderr.read() == ""
    wait_for(lambda: not alive(child), "the end of what it started")


def test_a_run_that_nobody_interrupts_is_left_in_peace(start):
    assert start(ENDS).wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_proof_leaves_no_process(start, tmp_path, number):
    process = start(PROVES)
    (child,) = wait_for(lambda: lines(tmp_path / "uninterrupted.log"), "the first run")
    process.send_signal(number)
    process.wait(PATIENCE)
    assert not alive(int(child))


def test_a_terminal_that_is_closed_ends_a_run_as_sigterm_does(start, tmp_path):
    terminal, other_end = os.openpty()
    with os.fdopen(other_end, "wb") as output:
        process = start(CLEANS, stdout=output, stderr=output)
        wait_for((tmp_path / "began").exists, "the program")
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert (tmp_path / "cleaned").exists()


def test_nohup_stays_in_force(start, tmp_path):
    process = start(CLEANS, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for((tmp_path / "began").exists, "the program")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert process.stdout.read() == "cleaning up\n"
