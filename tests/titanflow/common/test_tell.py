"""A line of a lasting program is no reason for its end."""

import subprocess
import sys
from pathlib import Path

import pytest

from titanflow.common.console import tell

CODE = """
from pathlib import Path
from titanflow.common.console import tell
tell("one")
tell("two", to_errors=True)
Path({file!r}).touch()
"""


def test_a_line_goes_out_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    tell("größe")
    tell("wrong", to_errors=True)
    assert capfd.readouterr() == ("größe\n", "wrong\n")


def test_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    program = CODE.format(file=str(tmp_path / "goes on"))
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        subprocess.run([sys.executable, "-c", program], stdout=full, stderr=full, check=False)
    assert (tmp_path / "goes on").exists()
