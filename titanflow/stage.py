"""The contract between a task and the process it starts: ``run.yaml`` in, ``result.json`` or ``error.json`` out.

A stage can be run again by hand from these files alone, with the one command that its log shows.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from titanflow.contamination import Contamination
from titanflow.errors import DataError, Problem
from titanflow.inheritance_row import InheritanceRow
from titanflow.moved import told_from
from titanflow.wandb_record import WandbRecord

StageName = Literal["prepare", "pretrain", "sft", "evaluate", "publish"]
STAGES: tuple[StageName, ...] = ("prepare", "pretrain", "sft", "evaluate", "publish")

RUN_FILE = "run.yaml"
_FOLDER_LINE = re.compile(r"^folder:.*(?:\n .*)*", re.M)
RESULT_FILE = "result.json"
ERROR_FILE = "error.json"
METRICS_FILE = "metrics.jsonl"
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


class StageRun(Strict):
    """``run.yaml``: everything a stage needs, resolved, with nothing left to look up.

    ``work_group`` and ``user_name`` say whose it is, and change no result. ``config`` holds the module's sections as
    the user may write them (for a training stage torchtitan's own and this project's); ``model_overrides`` is flat and
    without the ``model.`` prefix; ``stages`` holds the folders of this run's other stages, ``base`` the stage that an
    sft starts from.
    """

    stage: StageName
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

    def write(self) -> Path:
        """Writes ``run.yaml`` into the stage's folder and returns its path."""
        path = self.folder / RUN_FILE
        write_text_atomically(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=110))
        return path

    @classmethod
    def read(cls, path: Path) -> StageRun:
        """Reads a ``run.yaml``, also of a run that was moved or copied."""
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return cls.model_validate(told_from(values, Path(values["folder"]), Path(path).resolve().parent))


class PrepareResult(Strict):
    """What the prepare step made: folder → its ``dataset.json`` (rows, tokens, dropped)."""

    stage: Literal["prepare"] = "prepare"
    tokenizer: Path | None = None
    datasets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seconds: float = 0.0


class TrainResult(Strict):
    """What a pretraining or SFT stage made.

    ``loss`` is the mean of the last logged steps in nats per token, ``model_args`` the arguments that the model
    was built with, ``export`` the folder that transformers loads (None where the family has no export),
    ``inheritance`` the table of an sft. ``parameters`` counts the model's own; with LoRA
    ``trainable_parameters`` those of adapters and saved modules (None: all are trained), ``checkpoint`` holds these
    alone, ``export`` has them merged, and ``adapter`` is the folder that ``peft`` loads, where one was asked for.
    ``base_model`` is the Hub's repository that it started from (empty where it was none). ``peak_memory_bytes`` is the
    first rank's, of its last attempt (None where that only exported).
    """

    stage: Literal["pretrain", "sft"]
    checkpoint: Path
    step: int
    model_name: str
    flavor: str
    model_args: dict[str, Any]
    parameters: int
    trainable_parameters: int | None = None
    first_loss: float | None = None
    loss: float | None = None
    validation_loss: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    seq_len: int
    tokenizer: Path | None = None
    tokenizer_digest: str = ""
    export: Path | None = None
    export_digests: dict[str, str] = Field(default_factory=dict)
    parity: dict[str, float] = Field(default_factory=dict)
    adapter: Path | None = None
    inheritance: list[InheritanceRow] = Field(default_factory=list)
    base_model: str = ""
    wandb_id: str = ""
    wandb: WandbRecord = Field(default_factory=WandbRecord)
    versions: dict[str, str] = Field(default_factory=dict)


class Greedy(Strict):
    """What a model says to a prompt without chance, in token ids: how a copy of it is recognised."""

    prompt: list[int]
    continuation: list[int]


class CutPrompts(Strict):
    """Of a task's items, those whose prompt was longer than the model's context; of the longest ``tokens`` were left
    out."""

    prompts: int
    of: int
    tokens: int
    longest: int

    def __str__(self) -> str:
        return f"{self.prompts} of {self.of} prompts cut, up to {self.tokens} tokens of {self.longest}"


class EvaluateResult(Strict):
    """Scores of each model side by side.

    ``scores[model][task][metric]`` is a number (``metric_stderr`` beside it); ``digests[model][file]`` the sha256
    of each evaluated file; ``greedy[model]`` what each said to a prompt; ``cut[model][task]`` the prompts that didn't
    fit; ``reference[task]`` the bits per byte that ``xz`` needs for the task's text, ``part`` which held-out rows the
    prepared items are, ``left_out`` how many rows of it can be no item, by reason, ``contamination`` which items the
    models were trained on (None where nobody looked). With the backend ``native`` folders and digests are
    checkpoints', and nothing that could be published was scored.
    """

    stage: Literal["evaluate"] = "evaluate"
    scores: dict[str, dict[str, dict[str, float]]]
    folders: dict[str, Path]
    digests: dict[str, dict[str, str]]
    backend: Literal["hf", "native", "vllm"] = "hf"
    greedy: dict[str, Greedy] = Field(default_factory=dict)
    samples: dict[str, int] = Field(default_factory=dict)
    n_shot: dict[str, int] = Field(default_factory=dict)
    task_versions: dict[str, str] = Field(default_factory=dict)
    higher_is_better: dict[str, dict[str, bool]] = Field(default_factory=dict)
    cut: dict[str, dict[str, CutPrompts]] = Field(default_factory=dict)
    reference: dict[str, float] = Field(default_factory=dict)
    examples: list[dict[str, str]] = Field(default_factory=list)
    limit: float | None = None
    part: str = ""
    left_out: dict[str, int] = Field(default_factory=dict)
    contamination: Contamination | None = None
    seeds: dict[str, int] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
    wandb_id: str = ""
    wandb: WandbRecord = Field(default_factory=WandbRecord)

    @property
    def left_out_text(self) -> str:
        """A sentence on the rows that are no items; empty where all are."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        return f"Of the rows that were held out, {reasons} were left out as items." if reasons else ""


class Comparison(Strict):
    """One metric of one task, the model's samples beside those of the model published last.

    ``difference`` is that of the scores over ``pairs`` samples, above 0 where the new model is better; ``low`` and
    ``high`` are its one-sided bootstrap bounds, each at the gate's confidence.
    """

    task: str
    metric: str
    pairs: int
    difference: float
    low: float
    high: float
    passed: bool


class Threshold(Strict):
    """One metric of one task beside the bound that the gate sets."""

    task: str
    metric: str
    value: float
    bound: float
    passed: bool


class GateDecision(Strict):
    """Whether a model may be published, and why.

    ``against`` names what it was compared with: a commit of the Hub, the run that a folder holds, or nothing where none
    was published yet. A comparison passes where its lower bound, at ``confidence``, is above ``margin``.
    """

    passed: bool
    reason: str
    against: str = ""
    confidence: float = 0.95
    margin: float = 0.0
    thresholds: list[Threshold] = Field(default_factory=list)
    comparisons: list[Comparison] = Field(default_factory=list)


class PublishResult(Strict):
    """Where the model was published: a folder, or a repository's commit and tag.

    ``status`` is ``held back`` where the gate didn't let it pass, and ``dry run`` where nothing was to be written; then
    ``location`` is where it would have gone. ``proposed`` waits for a review: ``pull_request`` is its URL, nothing is
    tagged.
    """

    stage: Literal["publish"] = "publish"
    target: Literal["folder", "hub"]
    status: Literal["published", "proposed", "held back", "dry run"] = "published"
    location: str
    repo_id: str = ""
    commit: str = ""
    tag: str = ""
    pull_request: str = ""
    gate: GateDecision | None = None
    files: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0


StageResult = PrepareResult | TrainResult | EvaluateResult | PublishResult


class StageError(Strict):
    """``error.json``: the first rank that failed, and its own exception."""

    rank: int = 0
    type: str
    message: str
    traceback: str = ""
    exit_code: int = 1


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new, never half of one, also after a power cut."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_result(folder: Path, result: BaseModel) -> None:
    """Writes ``result.json``, the mark of a finished stage."""
    write_text_atomically(Path(folder) / RESULT_FILE, result.model_dump_json(indent=2) + "\n")


def read_result(folder: Path) -> StageResult:
    """Reads a stage's ``result.json``, also of a run that was moved or copied.

    Raises:
        FileNotFoundError: the stage has not finished.
        DataError: another version wrote it.
    """
    raw = json.loads((Path(folder) / RESULT_FILE).read_text(encoding="utf-8"))
    raw = told_from(raw, _written_for(Path(folder)), Path(folder).resolve())
    kinds: dict[str, type[BaseModel]] = {
        "prepare": PrepareResult,
        "pretrain": TrainResult,
        "sft": TrainResult,
        "evaluate": EvaluateResult,
        "publish": PublishResult,
    }
    try:
        return kinds[raw["stage"]].model_validate(raw)  # type: ignore[return-value]
    except ValidationError as error:
        found, hint = "another version of titanflow wrote it", "--run NAME makes a run beside this one"
        raise DataError(Problem(found, origin=str(Path(folder) / RESULT_FILE), hint=hint)) from error


def _written_for(folder: Path) -> Path:
    """The folder of a stage as its ``run.yaml`` has it, of which only that line is read; its own without one."""
    path = folder / RUN_FILE
    found = _FOLDER_LINE.search(path.read_text(encoding="utf-8")) if path.is_file() else None
    return Path(yaml.safe_load(found[0])["folder"]) if found else folder.resolve()


def write_error(folder: Path, error: StageError) -> None:
    """Writes ``error.json`` unless another rank already did: the first to fail is the one that counts."""
    path = Path(folder) / ERROR_FILE
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(error.model_dump_json(indent=2) + "\n", encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
