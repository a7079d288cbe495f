"""A stage's job in a cluster: the record of it in the stage's folder, by which a later flow finds it again."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from titanflow.common.errors import DataError
from titanflow.common.files import write_text_atomically
from titanflow.files.own_files import read_mapping, readable
from titanflow.planning.cluster.resources import job_name
from titanflow.runs.contract import JOB_FILE, Strict

HINT = "look whether its job is still there (squeue --me, kubectl get jobsets), end it, and remove the file"


@dataclass(frozen=True)
class JobState:
    """What a scheduler says of a job.

    ``reason`` is its own word: what a waiting job waits for, how an ended one ended; ``message`` says more, if anything
    does. ``begins`` is when it expects a waiting job to begin; ``status`` the exit status of an ended one, None if
    nobody knows it. ``ran`` are the seconds that an ended one took, ``limit`` those that it was given.
    """

    phase: Literal["waiting", "running", "ended", "unknown"]
    reason: str = ""
    message: str = ""
    begins: str = ""
    status: int | None = None
    ran: int | None = None
    limit: int | None = None


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

    @model_validator(mode="after")
    def _has_an_id_of_its_kind(self) -> Self:
        is_one = {"slurm": not self.id or self.id.isdecimal(), "kubernetes": self.id in ("", self.name)}
        if not is_one.get(self.kind):
            raise ValueError(f"{self.id!r} is no job of {self.kind}")
        return self

    def is_of(self, stage: str, folder: Path) -> bool:
        """Whether it is this folder's; a copy of a folder, made while its job was there, has that job's record."""
        return self.name.startswith(job_name(stage, folder))

    @property
    def to_end(self) -> str:
        """The command by which a person ends the job, also one whose id nobody knows."""
        name, _, namespace = self.name.partition(".")
        by_kind = {
            "slurm": f"scancel --name={self.name}" + (f" {self.id}" if self.id else ""),
            "kubernetes": f"kubectl delete jobset {name} --namespace={namespace}",
        }
        return by_kind[self.kind]

    def write(self, folder: Path) -> None:
        write_text_atomically(folder / JOB_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def of(cls, folder: Path) -> Job | None:
        """The last job of a stage's folder; None if it never had one.

        Raises:
            DataError: the record is damaged, so that nobody knows whether a job still writes into the folder.
        """
        path = folder / JOB_FILE
        if not path.is_file():
            return None
        stored = read_mapping(path, HINT)
        with readable(path, HINT):
            return cls.model_validate(stored)


def unended(folder: Path) -> dict[str, Job]:
    """The jobs of a run's stages whose end no flow has seen, by stage; no scheduler is asked."""
    found: dict[str, Job] = {}
    for path in sorted(folder.glob(f"*/{JOB_FILE}")):
        with contextlib.suppress(DataError):
            job, stage = Job.of(path.parent), path.parent.name
            if job is not None and not job.ended and job.is_of(stage, path.parent):
                found[stage] = job
    return found


def status_file(job: str, folder: Path) -> Path:
    """Where a job's script notes the exit status of its stage."""
    return folder / f"job-{job}.status"


def noted_status(job: str, folder: Path) -> int | None:
    """The exit status that a job's script noted; None if it noted none, or on a disk that was full."""
    path = status_file(job, folder)
    text = path.read_text(encoding="ascii", errors="replace").strip() if path.is_file() else ""
    return int(text) if text.isdecimal() else None
