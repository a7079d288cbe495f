import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from watching import PATIENCE, STAYS, alive, lines, wait_for

from tasks.process.process import MARK, Process, started


def write(path: Path, program: str) -> list[str]:
    path.write_text(textwrap.dedent(program))
    return [sys.executable, str(path)]


SLEEPS = f"import time; print('up', flush=True); time.sleep({STAYS})"
# Says that it was told to end, and stays.
DEAF = f"""
import signal, time
signal.signal(signal.SIGTERM, lambda number, frame: print("told", flush=True))
print("up", flush=True)
time.sleep({STAYS})
"""
# A grandchild in a session of its own, as torchrun's ranks are; it prints its id.
LAUNCHES = f"""
import subprocess, sys, time
rank = subprocess.Popen([sys.executable, "-c", {SLEEPS!r}], start_new_session=True)
# In one piece: unbuffered, the parts of a line would be written one by one.
print(f"rank {{rank.pid}}", flush=True)
time.sleep({STAYS})
"""


def test_output_goes_to_the_file_and_the_exit_status_is_the_command_s(tmp_path):
    log = tmp_path / "log"
    with started([sys.executable, "-c", "print('out'); import sys; sys.exit('err')"], log) as process:
        assert process.wait(PATIENCE) == 1
    assert lines(log) == ["out", "err"]


def test_a_command_that_does_not_exist_ends_with_127_and_says_so(tmp_path):
    with started(["/no/such/program"], tmp_path / "log") as process:
        assert process.wait(PATIENCE) == 127
    assert lines(tmp_path / "log") == ["/no/such/program: No such file or directory"]


def test_an_exception_that_is_no_exception_stops_the_process(tmp_path):
    class TerminationSignal(BaseException):
        pass

    def cancelled() -> Iterator[Process]:
        with started([sys.executable, "-c", SLEEPS], tmp_path / "log") as process:
            yield process

    steps = cancelled()
    process = next(steps)
    wait_for(lambda: lines(tmp_path / "log"), "the process")
    with pytest.raises(TerminationSignal):
        steps.throw(TerminationSignal())
    assert process.returncode == -signal.SIGTERM


def test_a_process_may_save_before_it_ends(tmp_path):
    saving = f"""
        import pathlib, signal, sys, time
        def save(number, frame):
            time.sleep(0.3); pathlib.Path("saved").write_text("all of it"); sys.exit(143)
        signal.signal(signal.SIGTERM, save)
        print("up", flush=True); time.sleep({STAYS})
    """
    command = ["sh", "-c", f'cd "{tmp_path}" && exec "$0" "$@"', *write(tmp_path / "saves.py", saving)]
    with started(command, tmp_path / "log", grace=PATIENCE) as process:
        wait_for(lambda: lines(tmp_path / "log"), "the process")
    assert (tmp_path / "saved").read_text() == "all of it"
    assert process.returncode == 143


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(tmp_path):
    with started([sys.executable, "-c", DEAF], tmp_path / "log", grace=0.3) as process:
        wait_for(lambda: lines(tmp_path / "log"), "the process")
    assert process.returncode == -signal.SIGKILL


def test_a_grandchild_in_its_own_session_is_gone_too(tmp_path):
    log = tmp_path / "log"
    with started([sys.executable, "-c", LAUNCHES], log, grace=5):
        rank = int(wait_for(lambda: lines(log), "the rank")[0].split()[1])
        assert alive(rank)
        assert os.getsid(rank) == rank
    assert not alive(rank)


def test_the_orphans_of_a_killed_process_are_gone_too(tmp_path):
    log = tmp_path / "log"
    with started([sys.executable, "-c", LAUNCHES], log, grace=5) as process:
        rank = int(wait_for(lambda: lines(log), "the rank")[0].split()[1])
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
        assert alive(rank)
    assert not alive(rank)


def test_a_process_inside_a_process_belongs_to_both(tmp_path):
    outer = f"""
        import sys, time
        from pathlib import Path
        from tasks.process.process import Process
        inner = Process([sys.executable, "-c", {SLEEPS!r}], Path({str(tmp_path / "inner")!r}).open("ab"))
        print(inner.pid, flush=True)
        time.sleep({STAYS})
    """
    log = tmp_path / "log"
    with started(write(tmp_path / "outer.py", outer), log, grace=5) as process:
        inner = int(wait_for(lambda: lines(log), "the inner process")[0])
        # It becomes its command only then: in between, the system shows no environment.
        wait_for(lambda: lines(tmp_path / "inner"), "its command")
        assert process.mark in psutil.Process(inner).environ()[MARK].split("/")
        assert [child.pid for child in process.descendants()] == [inner]
    assert not alive(inner)


def test_a_process_ends_when_its_starter_is_killed(tmp_path):
    log = tmp_path / "log"
    starter = f"""
        import sys, time
        from pathlib import Path
        from tasks.process.process import Process
        Process([sys.executable, "-c", {SLEEPS!r}], Path({str(log)!r}).open("ab"))
        time.sleep({STAYS})
    """
    parent = subprocess.Popen(write(tmp_path / "starter.py", starter))
    try:
        wait_for(lambda: lines(log), "the child")
        (child,) = psutil.Process(parent.pid).children()
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not alive(child.pid), "the child's end")


@pytest.fixture
def patient(tmp_path):
    """A process that waits for a deaf one, and would wait for it after an interrupt, too; with it, the deaf one."""
    program = f"""
        import sys
        from pathlib import Path
        from tasks.process.process import started
        with started([sys.executable, "-c", {DEAF!r}], Path({str(tmp_path / "log")!r}), grace={STAYS}) as process:
            process.wait({STAYS})
    """
    parent = subprocess.Popen(write(tmp_path / "patient.py", program), stderr=subprocess.DEVNULL)
    family = []
    try:
        wait_for(lambda: lines(tmp_path / "log"), "the child")
        family = psutil.Process(parent.pid).children()
        (child,) = family
        yield parent, child
    finally:
        for process in [parent, *family]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        parent.wait()


def test_a_second_interrupt_kills_at_once(patient, tmp_path):
    parent, child = patient
    parent.send_signal(signal.SIGINT)
    wait_for(lambda: lines(tmp_path / "log")[1:] == ["told"], "the first to arrive")
    assert parent.poll() is None
    parent.send_signal(signal.SIGINT)
    parent.wait(PATIENCE)
    assert not alive(child.pid)


def test_interrupts_without_end_do_not_break_off_the_kill(tmp_path, monkeypatch):
    def descendants(process):
        os.kill(os.getpid(), signal.SIGINT)
        return look(process)

    look = Process.descendants
    monkeypatch.setattr(Process, "descendants", descendants)
    with pytest.raises(KeyboardInterrupt), started([sys.executable, "-c", DEAF], tmp_path / "log") as process:
        wait_for(lambda: lines(tmp_path / "log"), "the process")
    assert not alive(process.pid)


def test_an_interrupt_while_it_is_started_leaves_no_process(tmp_path, monkeypatch):
    begun = []

    def popen(*arguments, **options):
        begun.append(start(*arguments, **options))
        os.kill(os.getpid(), signal.SIGINT)
        return begun[0]

    start = psutil.Popen
    monkeypatch.setattr(psutil, "Popen", popen)
    with pytest.raises(KeyboardInterrupt), started([sys.executable, "-c", SLEEPS], tmp_path / "log"):
        pytest.fail("the block isn't entered")
    assert not alive(begun[0].pid)


def test_signals_that_a_shell_ignored_are_answered(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with (tmp_path / "log").open("ab") as output:
            process = Process([sys.executable, "-c", SLEEPS], output)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(lambda: lines(tmp_path / "log"), "the process")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) is not None
    process.kill()


def test_the_environment_is_added_to_the_inherited_one(tmp_path, monkeypatch):
    monkeypatch.setenv("INHERITED", "1")
    program = "import json, os; print(json.dumps([os.environ['INHERITED'], os.environ['ADDED']]))"
    with started([sys.executable, "-c", program], tmp_path / "log", {"ADDED": "2"}) as process:
        process.wait(PATIENCE)
    assert json.loads((tmp_path / "log").read_text()) == ["1", "2"]


def test_a_cluster_s_settings_for_its_own_torchrun_do_not_reach_a_stage_s(tmp_path, monkeypatch):
    # What Kubeflow's operator sets; torchrun would wait for the second machine.
    monkeypatch.setenv("PET_NNODES", "2")
    program = "import os, sys; sys.stdout.write(str([name for name in os.environ if name.startswith('PET_')]))"
    with started([sys.executable, "-c", program], tmp_path / "log") as process:
        process.wait(PATIENCE)
    assert (tmp_path / "log").read_text() == "[]"
