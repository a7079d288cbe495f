"""Scores as ``titan.evaluate.during`` does, but a training's first attempt dies: ``-m killed_scoring run.yaml``.

SIGKILL comes when the process opens a file of the run, at random. ``kill.txt`` in the training's folder says which one.
"""

from __future__ import annotations

import os
import random
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

MODULE = "titan.evaluate.during"
KILL = "kill.txt"
FILES = 28
"""About so many a process opens below the run's folder: checkpoint, kept scores, results, recordings of W&B."""


def die_at(count: int, folder: Path) -> None:
    """Ends this process when it opens the ``count``-th file below a folder."""
    left = count

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open" and str(arguments[0]).startswith(f"{folder}{os.sep}"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


if __name__ == "__main__":
    run = Path(sys.argv[1])
    kill = run.parent.parent / KILL
    if not kill.exists():
        drawn = random.randint(1, FILES)
        kill.write_text(f"at file {drawn}\n", encoding="utf-8")
        die_at(drawn, run.parents[2])
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
