import subprocess
import sys

import pytest

from titan.stage_lock import hold
from titanflow.errors import StageFailed

HOLDS = "import sys; from pathlib import Path; from titan.stage_lock import hold; f = hold(Path(sys.argv[1])); print(1)"


def test_a_second_training_waits_until_the_first_is_gone_however_it_went(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", f"{HOLDS}; sys.stdin.read()", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"1\n"
    with pytest.raises(StageFailed, match="another training still writes here"):
        hold(tmp_path, patience=0)
    process.kill()
    process.wait()
    hold(tmp_path, patience=0).close()


def test_one_that_is_alone_does_not_wait(tmp_path):
    hold(tmp_path, patience=0).close()
