import os
import socket
import subprocess
import sys

import psutil

from tasks.ui.labels import labelled_process_lives


def label(pid, created):
    return f"{socket.gethostname()} {pid} {created:.2f}"


def test_a_process_is_known_by_its_id_and_its_start():
    created = psutil.Process().create_time()
    assert labelled_process_lives(label(os.getpid(), created))
    # The same id, given to another process later on.
    assert not labelled_process_lives(label(os.getpid(), created - 5))
    assert not labelled_process_lives(f"elsewhere {os.getpid()} {created:.2f}")


def test_a_process_that_ended_does_not_live():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    own = label(process.pid, psutil.Process(process.pid).create_time())
    assert labelled_process_lives(own)
    process.communicate()
    assert not labelled_process_lives(own)
