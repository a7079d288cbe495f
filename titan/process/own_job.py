"""A stage's process in a cluster leaves when its folder has another job.

A node whose daemon died, or that only the scheduler can't reach, is given up, and with it its job; its processes may
live on, while the next job trains in the same folder on other nodes.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from titanflow.runs.contract import INTERRUPTED_EXIT, JOB_FILE
from titanflow.runs.torchrun import JOB

LOOK_SECONDS = 10.0
"""A new job takes longer to start than its predecessor to notice."""


def end_with_job(folder: Path, every: float = LOOK_SECONDS) -> None:
    """Ends this process, without a save, soon after its stage's folder was given to another job."""
    own = os.environ.get(JOB)
    if own:
        threading.Thread(target=_watch, args=(folder, own, every), daemon=True, name="own job").start()


def is_given_away(folder: Path, own: str) -> bool:
    """Whether a stage's folder belongs to another job than ``own``."""
    try:
        record = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
        job, has_ended = record["id"], record.get("ended")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    # Empty between the submission and its answer. One that has ended gives way to a job that was submitted by hand.
    return isinstance(job, str) and job not in ("", own) and not has_ended


def _watch(folder: Path, own: str, every: float) -> None:
    never = threading.Event()
    while not never.wait(every):
        if is_given_away(folder, own):
            print(f"job {own} was given up, and another has its folder: leaving without a save", flush=True)
            os._exit(INTERRUPTED_EXIT)
