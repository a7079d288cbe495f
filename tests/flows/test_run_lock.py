import subprocess
import sys

import pytest

from flows.run_lock import run_lock
from titanflow.errors import StageFailed

HOLDS = """
import sys, time
from pathlib import Path
from flows.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_is_refused_and_free_again_when_its_holder_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "holds\n"
        with pytest.raises(StageFailed, match=f"in use by process {holder.pid} on .*--run"), run_lock(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with run_lock(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_it_can_be_taken_again_and_other_folders_are_free(tmp_path):
    for _ in range(2):
        with run_lock(tmp_path / "a"), run_lock(tmp_path / "b"):
            pass
    assert (tmp_path / "b/.lock").exists()
