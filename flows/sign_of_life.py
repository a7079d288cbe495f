"""A sign of life, a file on shared storage, by which other machines see that a process still holds a folder.

A lock of the file system may count for one machine alone (NFS with ``nolock``, Lustre without ``flock``), and a process
of another machine can't be looked for. So the holder writes a number that changes now and then; who sees it stand still
for long, by a clock of its own, takes the holder for dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from titanflow.common.files import write_text_atomically
from titanflow.runs.torchrun import JOB

HOLDER_FILE = ".holder"
"""The sign of the flow that holds a run's folder; a stage in another work pool has one of its own there."""
JOB_IDS = ("SLURM_JOB_ID", JOB)
"""Environment variables with the id of the job of a cluster that a process belongs to."""
BEAT_SECONDS = 20.0
"""How often the number changes."""
DEAD_SECONDS = 150.0
"""How long it stands still before its holder is taken for dead. A client of NFS may show a minute-old folder."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextlib.contextmanager
def sign_of_life(sign: Path, beat: float = BEAT_SECONDS) -> Iterator[None]:
    """Shows in the file ``sign``, for the length of the block, that this process lives."""
    over = threading.Event()
    holder = {
        "machine": machine(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": job_of(os.environ),
    }

    def beats() -> None:
        number = 0
        while not over.wait(beat):
            number += 1
            # A folder that is full or away for a while ends nothing: the next sign may get through.
            with contextlib.suppress(OSError):
                write_text_atomically(sign, json.dumps({**holder, "beat": number}))

    write_text_atomically(sign, json.dumps({**holder, "beat": 0}))
    thread = threading.Thread(target=beats, name="sign of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        sign.unlink(missing_ok=True)


class Watch:
    """Looks at a sign of life again and again."""

    def __init__(self, sign: Path, dead: float = DEAD_SECONDS) -> None:
        self._path, self._dead = sign, dead
        self._seen, self._since = "", 0.0
        self.is_alive = False
        """Whether the sign was seen to change: until then its holder may be dead."""

    def holder(self) -> str:
        """The process of another machine that shows it, as far as can be told; empty if there is none."""
        try:
            text = self._path.read_text(encoding="utf-8")
            holder = json.loads(text)
            told = f"process {holder['pid']} on {holder['host']}"
            # Of this machine the system knows: its lock is free.
            if holder["machine"] == machine():
                return ""
        except (OSError, ValueError, LookupError, TypeError):
            return ""
        now = time.monotonic()
        if text != self._seen:
            self.is_alive = bool(self._seen)
            self._seen, self._since = text, now
        if now - self._since >= self._dead:
            return ""
        job = f", job {holder['job']}" if holder.get("job") else ""
        return told + job


def job_of(environ: Mapping[str, str]) -> str | None:
    """The job of a cluster that a process belongs to, by its environment."""
    return next((environ[name] for name in JOB_IDS if name in environ), None)


def machine() -> str:
    """What tells this machine, since its start, from every other."""
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()
