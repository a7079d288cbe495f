"""A run's plan: each stage with its state, its inputs and its command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from titanflow.common.files import write_text_atomically
from titanflow.config.experiment import Experiment
from titanflow.config.mixture import phases_note
from titanflow.nightly.night import Night
from titanflow.planning.extension.more_steps import Extension
from titanflow.planning.forecast.forecast import Forecast
from titanflow.planning.origin.inheritance import inheritance_table
from titanflow.runs.changes import Change
from titanflow.runs.contract import StageKind, StageRun
from titanflow.runs.inputs import StageInputs
from titanflow.runs.results import InheritanceRow

StageState = Literal["RUN", "RESUME", "EXTEND", "CACHED", "STALE"]


@dataclass
class StagePlan:
    """What one stage would do, and all that it needs.

    ``changes`` are the inputs that changed since it ran; ``kept`` says that its old output is used all the same.
    ``extension`` says what more steps do to a training. ``continues`` has the digest of the earlier night's result that
    it continues, by that stage's name. ``during`` is the evaluation of a training's checkpoints while it trains, if any
    is asked for, and ``best`` the score by which its best checkpoint stays, if one is published.
    """

    stage: str
    state: StageState
    reason: str
    run: StageRun
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    inputs: StageInputs | None = None
    changes: list[Change] = field(default_factory=list)
    kept: bool = False
    extension: Extension | None = None
    forecast: Forecast | None = None
    continues: dict[str, str] = field(default_factory=dict)
    during: StageRun | None = None
    best: str = ""

    @property
    def kind(self) -> StageKind:
        return self.run.kind

    @property
    def pool(self) -> str:
        """The work pool that the stage runs in; empty for the run's own."""
        return (self.run.config.get("launcher") or {}).get("pool") or ""

    @property
    def is_job(self) -> bool:
        """Whether the stage is a job of a cluster, and no process of this machine."""
        return (self.run.config.get("launcher") or {}).get("kind", "local") != "local"


@dataclass
class Plan:
    """A run: its folder and its stages, in the order in which they run.

    ``anew`` makes the plan again; ``night`` is the night that it is planned for, if any.
    """

    experiment: str
    run: str
    folder: Path
    stages: list[StagePlan]
    config: Experiment
    anew: Callable[[], Plan] | None = None
    night: Night | None = None

    def stage(self, name: str) -> StagePlan | None:
        return next((stage for stage in self.stages if stage.stage == name), None)

    def of_kind(self, kind: StageKind) -> list[StagePlan]:
        """The stages of a kind, in the order in which they run."""
        return [stage for stage in self.stages if stage.kind == kind]

    def inheritance(self, stage: StagePlan) -> list[InheritanceRow]:
        """What a fine-tuning stage would keep and change of its base; empty for other stages."""
        module = self.config.modules.get(stage.stage) if self.config else None
        return inheritance_table(module.base, stage.run) if module is not None and module.base is not None else []

    @property
    def is_cached(self) -> bool:
        """Whether nothing is left to do, not even to note that an old output is kept."""
        return all(stage.state == "CACHED" and not stage.kept for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """The plan as ``titanflow plan --json`` prints it."""
        return {
            "experiment": self.experiment,
            "run": self.run,
            "folder": str(self.folder),
            **(self.config.who if self.config else {}),
            "night": self.night.model_dump(mode="json") if self.night else None,
            "stages": [
                {
                    "stage": stage.stage,
                    "kind": stage.kind,
                    "state": stage.state,
                    "reason": stage.reason,
                    "fingerprint": stage.run.fingerprint,
                    "folder": str(stage.run.folder),
                    "kept": stage.kept,
                    "changes": [change.model_dump() for change in stage.changes],
                    "command": stage.command,
                    "environment": stage.env,
                    "forecast": stage.forecast and stage.forecast.as_json(),
                    "inheritance": [row.model_dump() for row in self.inheritance(stage)],
                }
                for stage in self.stages
            ],
        }

    def write(self) -> None:
        """Writes ``plan.json`` into the run's folder, and notes that a night begins."""
        if self.night is not None and not self.is_cached:
            self.night = self.night.begin(self.folder)
        write_text_atomically(self.folder / "plan.json", json.dumps(self.as_json(), indent=2) + "\n")


def training_notes(run: StageRun) -> Iterator[str]:
    """What a plan says of a training beside its state: the steps of a mixture's phases, and a mean of its weights."""
    if phases := phases_note(run.config):
        yield phases
    decay = (run.config.get("training") or {}).get("ema")
    if decay is not None:
        yield f"validates and exports the moving mean of its weights (ema {decay})"
