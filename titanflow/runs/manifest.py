"""``manifest.json``: for each stage of a run what it was made from, what it wrote, and when.

A stage is done when its entry has the planned fingerprint and each output is still as written. No other state is
stored.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator

from titanflow.common.digests import digest, file_digest
from titanflow.common.files import write_text_atomically
from titanflow.files.own_files import read_mapping, readable
from titanflow.runs.changes import Change
from titanflow.runs.contract import KIND_OF, RESULT_FILE, RUN_FILE, StageKind, StageRun
from titanflow.runs.inputs import StageInputs
from titanflow.runs.outputs import OutputCheck, OutputFile, at_once
from titanflow.runs.results import (
    EvaluateResult,
    InheritanceRow,
    PublishResult,
    StageResult,
    TrackerRecord,
    TrainResult,
)
from titanflow.runs.scores.best import Best

MANIFEST_FILE = "manifest.json"
HASHED_UP_TO = 1 << 30
"""Bytes up to which a file of a checkpoint is hashed; of a larger file the digest has its size."""
REVISION = "TITANFLOW_REVISION"
"""Environment variable of an image: the commit that it was built from."""
PACKAGES = ("titanflow", "torch", "torchtitan", "transformers", "lm_eval", "datasets", "huggingface_hub", "prefect")


class StageRecord(BaseModel):
    """One stage's entry.

    ``kind`` is what the stage does: unset, what its name says. ``inputs`` is what the fingerprint is the digest of
    (None where an older version wrote the entry). ``outputs`` has paths relative to the run's folder where they lie
    below it; ``damaged`` are those that a run found changed. ``kept`` has the changes of the config in spite of which
    the last run used the stage. ``inheritance`` says what a fine-tuning took from its base and what it set itself.
    ``best`` has the trainings' best checkpoints among the models that an evaluation scored.
    ``forecast`` is what was expected when the stage began. ``parents`` are the digests of the earlier stages' results
    and, as ``<run>/pretrain``, of the night's that it continues.
    """

    fingerprint: str
    kind: StageKind | None = None
    inputs: StageInputs | None = None
    started: str = ""
    finished: str = ""
    outputs: dict[str, OutputFile] = Field(default_factory=dict)
    damaged: list[str] = Field(default_factory=list)
    kept: list[Change] = Field(default_factory=list)
    digest: str = ""
    parents: dict[str, str] = Field(default_factory=dict)
    inheritance: list[InheritanceRow] = Field(default_factory=list)
    best: dict[str, Best] = Field(default_factory=dict)
    forecast: dict[str, Any] = Field(default_factory=dict)
    prefect_run: str = ""
    trackers: dict[str, TrackerRecord] = Field(default_factory=dict)

    @field_validator("outputs", mode="before")
    @classmethod
    def _of_an_older_version(cls, outputs: dict[str, Any]) -> dict[str, Any]:
        # An older version recorded sizes alone.
        return {path: {"bytes": file} if isinstance(file, int) else file for path, file in outputs.items()}


class Manifest(BaseModel):
    """The record of one run, in its ``folder``; ``work_group`` and ``user_name`` are those of the last who ran it."""

    folder: Path = Field(exclude=True)
    experiment: str = ""
    run: str = ""
    work_group: str = ""
    user_name: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    git: str = ""
    stages: dict[str, StageRecord] = Field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Manifest:
        """The run's manifest; an empty one where there is none yet.

        Raises:
            DataError: it can't be read, or another version wrote it.
        """
        path = folder / MANIFEST_FILE
        stored = read_mapping(path) if path.exists() else {}
        with readable(path):
            return cls(folder=folder, **stored)

    def of_kind(self, kind: StageKind) -> list[str]:
        """The names of the stages of a kind, in the order in which they first began."""
        return [name for name, record in self.stages.items() if kind == (record.kind or KIND_OF.get(name))]

    def is_done(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage finished from exactly these inputs and all its outputs are still as written."""
        record = self.stages.get(stage)
        is_made = record is not None and record.fingerprint == fingerprint and bool(record.finished)
        return is_made and not self.changed_outputs(stage, OutputCheck())

    def changed_outputs(self, stage: str, check: OutputCheck) -> dict[str, str]:
        """What became of each output that is no longer as written, by its path."""
        record = self.stages[stage]
        return check.changed(self.folder, record.outputs, record.damaged)

    def verify(self, stage: str) -> dict[str, str]:
        """Reads all outputs of a finished stage, notes which changed, and returns :meth:`changed_outputs` of it."""
        record = self.stages[stage]
        changed = self.changed_outputs(stage, OutputCheck(budget=None))
        seen = {
            path: file if path in changed else OutputFile.of(self.folder / path, file.sha256)
            for path, file in record.outputs.items()
        }
        if (seen, list(changed)) != (record.outputs, record.damaged):
            record.outputs, record.damaged = seen, list(changed)
            self._write()
        return changed

    def record_kept(self, kept: dict[str, list[Change]]) -> None:
        """Notes for each stage the changes of the config in spite of which it is used."""
        before = {name: record.kept for name, record in self.stages.items()}
        for name, record in self.stages.items():
            record.kept = kept.get(name, [])
        if before != {name: record.kept for name, record in self.stages.items()}:
            self._write()

    def record_start(
        self,
        run: StageRun,
        inputs: StageInputs | None = None,
        forecast: Mapping[str, Any] | None = None,
        continues: Mapping[str, str] | None = None,
        prefect_run_id: str = "",
    ) -> None:
        """Notes that a stage begins, so that what it made before no longer counts."""
        self.experiment, self.run = run.experiment, run.run
        self.work_group, self.user_name = run.work_group, run.user_name
        self.versions = {"python": platform.python_version(), **installed_versions()}
        self.git = git_revision()
        # When a stage is made again, the later stages of before are still on record.
        earlier = {"prepare", *(inputs.parents if inputs else ())}
        parents = {name: record.digest for name, record in self.stages.items() if name in earlier and record.digest}
        self.stages[run.stage] = StageRecord(
            fingerprint=run.fingerprint,
            kind=run.kind,
            inputs=inputs,
            started=now(),
            prefect_run=prefect_run_id,
            parents=parents | dict(continues or {}),
            forecast=dict(forecast or {}),
        )
        self._write()

    def record_finish(self, run: StageRun, result: StageResult) -> None:
        record = self.stages.get(run.stage) or StageRecord(fingerprint=run.fingerprint, kind=run.kind)
        record.finished = now()
        known = _known_digests(result)
        paths = _outputs(run.folder, result)
        files = at_once(lambda path: OutputFile.of(path, known.get(path, "")), paths)
        record.outputs = {str(_relative(path, self.folder)): file for path, file in zip(paths, files, strict=True)}
        record.digest = file_digest(run.folder / RESULT_FILE)
        record.trackers = getattr(result, "trackers", {})
        record.inheritance = getattr(result, "inheritance", [])
        record.best = result.best if isinstance(result, EvaluateResult) else {}
        self.stages[run.stage] = record
        self._write()

    def _write(self) -> None:
        write_text_atomically(self.folder / MANIFEST_FILE, self.model_dump_json(indent=2) + "\n")


def _outputs(folder: Path, result: StageResult) -> list[Path]:
    paths = [folder / RUN_FILE, folder / RESULT_FILE]
    if isinstance(result, TrainResult):
        paths += [path for path in sorted(result.checkpoint.rglob("*")) if path.is_file()]
        paths += [result.export / name for name in result.export_digests] if result.export else []
        paths += sorted(result.adapter.glob("*")) if result.adapter else []
    elif isinstance(result, EvaluateResult):
        paths += sorted(folder.glob("*.jsonl"))
    elif isinstance(result, PublishResult) and result.target == "folder" and result.status == "published":
        paths += [Path(result.location) / name for name in result.files]
    return paths


def _known_digests(result: StageResult) -> dict[Path, str]:
    """The SHA-256 of outputs that the stage hashed when it wrote them."""
    if isinstance(result, TrainResult) and result.export:
        return {result.export / name: sha256 for name, sha256 in result.export_digests.items()}
    if isinstance(result, PublishResult) and result.target == "folder":
        return {Path(result.location) / name: sha256 for name, sha256 in result.files.items()}
    return {}


def checkpoint_digest(checkpoint: Path) -> str:
    """One digest of a checkpoint's files; a file over a gigabyte counts by its size alone."""
    found: dict[str, int | str] = {}
    for path in checkpoint.rglob("*"):
        if path.is_file():
            size = path.stat().st_size
            found[path.relative_to(checkpoint).as_posix()] = size if size > HASHED_UP_TO else file_digest(path)
    return digest(found)


def installed_versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_revision() -> str:
    """The commit of this project's checkout, with a ``+`` if files differ from it.

    Outside of a checkout it is the one that an image was built from, or empty.
    """
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # An installed package may lie within another repository, whose commit says nothing.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get(REVISION, "")


def _relative(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def now() -> str:
    """The present time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
