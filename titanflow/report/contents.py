"""A run's folder, read for its report: finished, half finished or failed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.common.errors import ConfigError, DataError, Problem
from titanflow.report.reconcile import Reconciled, reconcile, wall_seconds
from titanflow.runs.contract import KIND_OF, METRICS_FILE, RESULT_FILE, RUN_FILE, StageKind, StageRun, told_from
from titanflow.runs.errors import ERROR_FILE, StageError
from titanflow.runs.manifest import MANIFEST_FILE, Manifest, StageRecord
from titanflow.runs.metrics import EVALUATIONS_FILE, SAMPLES_FILE, read_metrics
from titanflow.runs.results import (
    EvaluateResult,
    InheritanceRow,
    PrepareResult,
    PublishResult,
    StageResult,
    TrainResult,
    read_result,
)

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class StageContents:
    """One stage: its plan and what it left behind; what is missing is None or empty."""

    name: str
    kind: StageKind
    folder: Path
    planned: str = ""
    reason: str = ""
    fingerprint: str = ""
    command: list[str] = field(default_factory=list)
    inheritance: list[InheritanceRow] = field(default_factory=list)
    record: StageRecord | None = None
    run: StageRun | None = None
    result: StageResult | None = None
    error: StageError | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def state(self) -> str:
        if self.result is not None:
            return getattr(self.result, "status", "finished") if self.kind == "publish" else "finished"
        if self.error is not None:
            return "failed"
        return "unfinished" if self.record or self.metrics else "not begun"

    @property
    def seconds(self) -> float | None:
        """From start to end by the manifest, start-up and export included; else by the stage's own result."""
        wall = wall_seconds(self.record) if self.record else None
        return getattr(self.result, "seconds", None) if wall is None else wall

    @property
    def reconciled(self) -> Reconciled | None:
        return reconcile(self.name, self.record, self.result) if self.record else None


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation with scores; ``outcome`` is the model that it is about: a published one, or its last."""

    stage: StageContents
    result: EvaluateResult
    outcome: str


@dataclass(frozen=True)
class RunContents:
    """A run's folder: its manifest, and its stages in order."""

    folder: Path
    manifest: Manifest
    stages: list[StageContents]

    def of_kind(self, kind: StageKind) -> list[StageContents]:
        """The stages of a kind, in the order in which they run."""
        return [stage for stage in self.stages if stage.kind == kind]

    @property
    def trained(self) -> list[tuple[StageContents, TrainResult]]:
        return [(stage, stage.result) for stage in self.stages if isinstance(stage.result, TrainResult)]

    @property
    def datasets(self) -> dict[str, Any]:
        """What the run noted of each folder of prepared rows, by its path."""
        results = (stage.result for stage in self.of_kind("prepare"))
        return next((one.datasets for one in results if isinstance(one, PrepareResult)), {})

    @property
    def evaluations(self) -> list[Evaluation]:
        found = []
        for stage in self.of_kind("evaluate"):
            if isinstance(stage.result, EvaluateResult) and (scored := list(stage.result.scores)):
                published = [model for model in self._published_by(stage.name) if model in scored]
                found.append(Evaluation(stage, stage.result, published[-1] if published else scored[-1]))
        return found

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation that the run is about: the last one by whose scores a model is published, else the last."""
        reported = [one for one in self.evaluations if self._published_by(one.stage.name)]
        return next(reversed(reported or self.evaluations), None)

    @property
    def publications(self) -> list[tuple[StageContents, PublishResult]]:
        return [(stage, stage.result) for stage in self.stages if isinstance(stage.result, PublishResult)]

    def _published_by(self, evaluation: str) -> list[str]:
        """The models that are published by the scores of an evaluation."""
        configs = (stage.run.config for stage in self.of_kind("publish") if stage.run)
        return [config["model"] for config in configs if config.get("evaluation") == evaluation]


def _run_nearby(folder: Path) -> str:
    """The run that is meant by one of its stages' folders, or by its experiment's."""
    near = [folder.parent, *sorted(path for path in folder.glob("*") if path.is_dir())]
    runs = [str(one) for one in near if (one / MANIFEST_FILE).is_file() or (one / PLAN_FILE).is_file()]
    return f"did you mean {' or '.join(runs[:3])}?" if runs else "run the experiment first"


def read_contents(folder: Path) -> RunContents:
    """Reads a run's folder; what is half written or from another version counts as missing.

    Raises:
        ConfigError: the folder isn't a run's.
    """
    plan = _json(folder / PLAN_FILE)
    if not plan and not (folder / MANIFEST_FILE).is_file():
        found = f"{folder} holds neither {PLAN_FILE} nor {MANIFEST_FILE}"
        raise ConfigError(Problem(found, "run", expected="the folder of a run", hint=_run_nearby(folder)))
    manifest = Manifest.open(folder)
    manifest.experiment = manifest.experiment or plan.get("experiment", "")
    manifest.run = manifest.run or plan.get("run", folder.name)
    manifest.work_group = manifest.work_group or plan.get("work_group", "")
    manifest.user_name = manifest.user_name or plan.get("user_name", "")
    planned = {stage["stage"]: stage for stage in plan.get("stages", [])}
    # Stages of an earlier config come behind those of the last plan.
    names = dict.fromkeys([*planned, *manifest.stages])
    stages = [_stage(folder / name, planned.get(name, {}), manifest.stages.get(name)) for name in names]
    return RunContents(folder, manifest, stages)


def _kind(name: str, planned: dict[str, Any], record: StageRecord | None) -> StageKind:
    return planned.get("kind") or (record and record.kind) or KIND_OF.get(name, "pretrain")


def _stage(folder: Path, planned: dict[str, Any], record: StageRecord | None) -> StageContents:
    return StageContents(
        name=folder.name,
        kind=_kind(folder.name, planned, record),
        folder=folder,
        planned=planned.get("state", ""),
        reason=planned.get("reason", ""),
        fingerprint=planned.get("fingerprint") or (record.fingerprint if record else ""),
        command=told_from(planned.get("command", []), Path(planned.get("folder", folder)), folder),
        inheritance=[InheritanceRow(**row) for row in planned.get("inheritance", [])],
        record=record,
        run=_read_or_none(StageRun.read, folder / RUN_FILE),
        result=_read_or_none(lambda path: read_result(path.parent), folder / RESULT_FILE),
        error=_read_or_none(lambda path: StageError.model_validate_json(path.read_bytes()), folder / ERROR_FILE),
        metrics=read_metrics(folder / METRICS_FILE),
        evaluations=read_metrics(folder / EVALUATIONS_FILE),
        samples=read_metrics(folder / SAMPLES_FILE),
    )


def _read_or_none(read: Any, path: Path) -> Any:
    """A file's content; None if it is missing, or if another version wrote it and this one can't read it."""
    try:
        return read(path)
    except (OSError, ValueError, DataError):
        return None


def _json(path: Path) -> dict[str, Any]:
    found = _read_or_none(lambda path: json.loads(path.read_bytes()), path)
    return found if isinstance(found, dict) else {}
