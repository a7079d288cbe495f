"""A stage's job in a cluster: the record of it in the stage's folder, by which a later flow finds it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from titanflow.common.files import write_text_atomically
from titanflow.run.contract import JOB_FILE, Strict


@dataclass(frozen=True)
class JobState:
    """What a scheduler says of a job.

    ``reason`` is its own word: what a waiting job waits for, how an ended one ended; ``message`` says more, if anything
    does. ``begins`` is when it expects a waiting job to begin; ``status`` the exit status of an ended one, None if
    nobody knows it.
    """

    phase: Literal["waiting", "running", "ended", "unknown"]
    reason: str = ""
    message: str = ""
    begins: str = ""
    status: int | None = None


class Job(Strict):
    """``job.json``. ``attempt`` counts the jobs of a stage's folder; ``id`` is empty from before the submission until
    the scheduler has answered; ``ended`` says that a flow has seen its end."""

    kind: str
    name: str
    attempt: int = 1
    id: str = ""
    fingerprint: str
    log_start: int = 0
    ended: bool = False

    def write(self, folder: Path) -> None:
        write_text_atomically(folder / JOB_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def of(cls, folder: Path) -> Job | None:
        """The last job of a stage's folder; None if it never had one."""
        path = folder / JOB_FILE
        return cls.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def status_file(job: str, folder: Path) -> Path:
    """Where a job's script notes the exit status of its stage."""
    return folder / f"job-{job}.status"


def noted_status(job: str, folder: Path) -> int | None:
    """The exit status that a job's script noted; None if it noted none."""
    path = status_file(job, folder)
    text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
    return int(text) if text else None
