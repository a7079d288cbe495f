"""The contract between a task and the process it starts: ``run.yaml`` in, ``result.json`` or ``error.json`` out.

With these files alone a stage can be run again by hand, by the command that its log shows.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from titanflow.common.errors import Problem
from titanflow.common.files import write_text_atomically
from titanflow.files.own_files import parse_yaml, readable

StageKind = Literal["prepare", "pretrain", "sft", "prefer", "evaluate", "publish"]
"""What a stage does. Its name is the module's, which may be another: an experiment may have two stages of a kind."""
PREPARE: Literal["prepare"] = "prepare"
"""The stage that belongs to no module: it makes the data of all."""
KINDS: tuple[StageKind, ...] = get_args(StageKind)
TrainedKind = Literal["pretrain", "sft", "prefer"]
"""The kinds of stages that train a model."""
TRAINED: tuple[StageKind, ...] = get_args(TrainedKind)
KIND_OF: dict[str, StageKind] = {**{kind: kind for kind in KINDS}, "pre_trainer": "pretrain", "post_trainer": "sft"}
"""The names that say a stage's kind: the kinds themselves, and Primus's names."""

RUN_FILE = "run.yaml"
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.jsonl"
DATASET_FILE = "dataset.json"
PREPARING_FILE = ".preparing"
"""In the workspace while data is prepared: by it, runs that start together prepare the same data once."""
CUT = "cut to training.seq_len, as data.overlong says"
"""In it, the note on a conversation that lost its beginning or its end."""
JOB_FILE = "job.json"
"""A stage's job in a cluster, as the flow noted it."""
EXPORT_FOLDER = "export"
"""A training stage's folder of the model that transformers loads; the evaluation makes it if the stage didn't."""
DURING_FOLDER = "during"
"""A training stage's folder of the evaluation while it trains, and of the checkpoints that are held for that."""
LIBRARY_LOG = "lm_eval.log"
"""What lm-eval prints in an evaluation: its progress bars."""
TASKS_FOLDER = "tasks"
"""The evaluation's folder of the task files that it ran, data filled in."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a run and its processes to end in good order."""
INTERRUPTED_EXIT = 143
"""Exit status of a stage that saved and left on SIGTERM (128 + 15), as a shell reports it."""


class Strict(BaseModel):
    """A model that refuses keys it doesn't know."""

    # A score may be NaN; as null it could not be read back.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


class PreparedData(Strict):
    """Where one module's prepared rows lie; ``validation`` is None where nothing is held out."""

    train: Path | None = None
    validation: Path | None = None


class DataOrigin(Strict):
    """A source of the rows that a stage trains on, as its config names it.

    ``stage`` is the training's name, ``member`` its own in a mixture; ``license`` and ``link`` are what the config
    states, if anything.
    """

    stage: str
    name: str
    member: str = ""
    dataset: str = ""
    revision: str = ""
    license: str = ""
    link: str = ""


class StageRun(Strict):
    """``run.yaml``: everything a stage needs, resolved.

    ``stage`` is its name, ``kind`` what it does: unset, what the name says. ``work_group`` and ``user_name`` say whose
    run it is and change no result. ``config`` has the module's sections as the user may write them (of a training
    torchtitan's and this project's). ``model_overrides`` is flat, without the prefix ``model.``. ``stages`` has the
    folders of this run's other stages, ``base`` that of the stage a training starts from. ``trained_on`` are the
    sources of the stages before a publishing, as they are stated when that begins.
    """

    stage: str
    kind: StageKind
    experiment: str
    run: str
    work_group: str = ""
    user_name: str = ""
    folder: Path
    fingerprint: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    model_overrides: dict[str, Any] = Field(default_factory=dict)
    origins: dict[str, str] = Field(default_factory=dict)
    tokenizer: Path | None = None
    data: PreparedData = Field(default_factory=PreparedData)
    base: Path | None = None
    base_digest: str = ""
    stages: dict[str, Path] = Field(default_factory=dict)
    trained_on: list[DataOrigin] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _named_after_its_kind(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values if "kind" in values else {**values, "kind": KIND_OF.get(str(values.get("stage")))}

    @property
    def trains(self) -> bool:
        return self.kind in TRAINED

    def placed(self, problems: Iterable[Problem]) -> list[Problem]:
        """Mistakes in the stage's config, each with the origin of its value."""
        return [replace(one, origin=self.origins.get(one.key, "")) for one in problems]

    def write(self) -> Path:
        path = self.folder / RUN_FILE
        write_text_atomically(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=110))
        return path

    @classmethod
    def of(cls, folder: Path) -> StageRun | None:
        """The ``run.yaml`` of a stage's folder; None where there is none."""
        path = folder / RUN_FILE
        return cls.read(path) if path.is_file() else None

    @classmethod
    def read(cls, path: Path) -> StageRun:
        """Reads a ``run.yaml``, also of a run that was moved or copied.

        Raises:
            DataError: it can't be read, or another version wrote it.
        """
        with readable(path):
            values = parse_yaml(path.read_text(encoding="utf-8"))
            return cls.model_validate(told_from(values, Path(values["folder"]), path.resolve().parent))


def told_from(values: Any, written: Path, now: Path) -> Any:
    """The values of a stage's file, with each path below its run or its workspace as it is now.

    A path below the workspace changes only if it exists there: a run may have been copied without its data.

    Args:
        values: mappings, lists and scalars.
        written: the stage's folder as the file has it.
        now: the folder in which the file lies.
    """
    if written == now:
        return values
    moves = [(str(written), str(now), True)]
    # A stage that was made again lies in superseded/ under another name; the rest of its run stayed in place.
    if written.name == now.name and len(written.parents) > 2 and len(now.parents) > 2:
        # A stage's folder is workspace/experiment/run/stage.
        moves += [
            (str(written.parents[0]), str(now.parents[0]), True),
            (str(written.parents[2]), str(now.parents[2]), False),
        ]
    return _told(values, moves)


def _told(value: Any, moves: list[tuple[str, str, bool]]) -> Any:
    if isinstance(value, dict):
        return {_told(key, moves): _told(item, moves) for key, item in value.items()}
    if isinstance(value, list):
        return [_told(item, moves) for item in value]
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    for old, new, is_certain in moves:
        if value == old or value.startswith(f"{old}/"):
            place = new + value.removeprefix(old)
            return place if is_certain or os.path.lexists(place) else value
    return value
