import signal
import subprocess
import sys
import textwrap

from watching import PATIENCE

from titanflow.runs.contract import INTERRUPTED_EXIT


def start(code):
    return subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def test_outside_of_training_a_signal_ends_the_process_even_while_it_waits_in_c():
    # flock blocks in C and, by PEP 475, is taken up again after a signal: no Python handler can break it off.
    process = start(
        """
        import fcntl, os, tempfile
        from titan.process.interrupt import Interruption
        Interruption().listen()
        held, wanted = tempfile.NamedTemporaryFile(), None
        fcntl.flock(held, fcntl.LOCK_EX)
        wanted = open(held.name)
        print("waiting")
        fcntl.flock(wanted, fcntl.LOCK_EX)
        """
    )
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == INTERRUPTED_EXIT
    assert "nothing to save" in process.stdout.read()


def test_in_training_a_signal_is_only_noted():
    process = start(
        """
        import sys
        from titan.process.interrupt import Interruption
        interruption = Interruption()
        interruption.listen()
        interruption.defer()
        print("training")
        sys.stdin.readline()
        while not interruption.requested:
            pass
        print("noted")
        """
    )
    assert process.stdout.readline() == "training\n"
    process.send_signal(signal.SIGINT)
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "noted\n"
    assert process.wait(PATIENCE) == 0


def test_after_training_a_signal_ends_the_process_again():
    process = start(
        """
        import sys
        from titan.process.interrupt import Interruption
        interruption = Interruption()
        interruption.listen()
        interruption.defer()
        interruption.release()
        print("exporting")
        sys.stdin.readline()
        """
    )
    assert process.stdout.readline() == "exporting\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == INTERRUPTED_EXIT


def test_other_signals_are_none_of_its_business():
    process = start(
        """
        import signal, sys
        from titan.process.interrupt import Interruption
        interruption = Interruption()
        interruption.listen()
        signal.signal(signal.SIGUSR1, lambda number, frame: print("user"))
        print("ready")
        sys.stdin.readline()
        print(interruption.requested)
        """
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "user\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "False\n"
    assert process.wait(PATIENCE) == 0


RANK = """
import sys
from titan.process.interrupt import Interruption
from titanflow.runs.torchrun import end_with_torchrun
Interruption().listen()
end_with_torchrun()
print("trains", flush=True)
sys.stdin.read()
"""


def test_a_rank_is_told_when_its_torchrun_is_killed():
    torchrun = start(
        f"""
        import os, subprocess, sys
        env = {{**os.environ, "TORCHELASTIC_RUN_ID": "none"}}
        subprocess.Popen([sys.executable, "-c", {RANK!r}], env=env).wait()
        """
    )
    assert torchrun.stdout.readline() == "trains\n"
    torchrun.kill()
    # The rank holds the pipe's other end: it is read to its end when the rank is gone.
    assert torchrun.stdout.read().startswith("SIGTERM: leaving")
    torchrun.communicate()
