"""One training at a time in a stage's folder."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

from titanflow.errors import StageFailed

LOCK_FILE = ".training"
PATIENCE_SECONDS = 120.0
"""A training that was told to stop saves first; how long the next one waits for it."""
POLL_SECONDS = 0.2


def hold(folder: Path, patience: float = PATIENCE_SECONDS) -> IO[str]:
    """Holds a stage's folder until this process ends, however it ends; keep what is returned.

    A flow that is killed leaves its ranks to save and leave, and the same command may be given meanwhile: the second
    training would remove the checkpoint that the first is writing.

    Raises:
        StageFailed: another process still holds it after ``patience`` seconds.
    """
    file = (folder / LOCK_FILE).open("w")
    deadline = time.monotonic() + patience
    while True:
        try:
            # Of the process, not of the open file: what a rank forks doesn't hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError:
            if time.monotonic() > deadline:
                file.close()
                raise StageFailed(
                    f"{folder}: another training still writes here after {patience:g} s: end it, or wait for it"
                ) from None
            time.sleep(POLL_SECONDS)
