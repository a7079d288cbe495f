"""``result.json``: what a stage made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from titanflow.common.files import write_text_atomically
from titanflow.files.own_files import parse_yaml, read_mapping, readable
from titanflow.runs.contract import KIND_OF, RESULT_FILE, RUN_FILE, Strict, TrainedKind, told_from
from titanflow.runs.scores.best import Best
from titanflow.runs.scores.contamination import Contamination
from titanflow.runs.scores.cut import CutPrompts

NOT_INHERITED = "Not inherited: optimizer state, scheduler, step, data position"
STDERR = "_stderr"
_FOLDER_LINE = re.compile(r"^folder:.*(?:\n .*)*", re.M)


class InheritanceRow(Strict):
    """One setting, as the base has it and as the stage has it.

    ``how`` is ``inherited`` for what can only be the base's (architecture, tokenizer, weights). A setting of the
    stage's own is ``kept`` if the base has the same value, ``changed`` if another, and ``set`` if the base's isn't
    known. ``origin`` is where the stage's value was written, or the base's name if it is inherited.
    """

    key: str
    how: Literal["inherited", "kept", "changed", "set"]
    base: str
    here: str
    origin: str = ""

    def __str__(self) -> str:
        where = f" from {self.origin}" if self.origin else ""
        return f"{self.how.capitalize()} {self.key}: {self.value}{where}"

    @property
    def value(self) -> str:
        """The stage's value; if it was changed, behind the base's."""
        return f"{self.base} → {self.here}" if self.how == "changed" else self.here


class ArtifactRecord(Strict):
    """An artifact as a tracker knows it; ``digest`` is this project's own of the content at ``reference``."""

    name: str
    type: str
    digest: str = ""
    reference: str = ""
    aliases: list[str] = Field(default_factory=list)


class TrackerRecord(Strict):
    """A stage's run at a tracker; without an id there is none, and the artifacts are those that it would link.

    ``url`` is where it lies: a server's page, or the store on this machine (of W&B nothing while it is offline).
    ``folders`` are W&B's offline recordings for ``wandb sync``, oldest first, relative to the stage's folder.
    """

    id: str = ""
    mode: str = "disabled"
    project: str = ""
    entity: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: list[str] = Field(default_factory=list)
    url: str = ""
    folders: list[str] = Field(default_factory=list)
    used: list[ArtifactRecord] = Field(default_factory=list)
    logged: list[ArtifactRecord] = Field(default_factory=list)


def tracked_ids(trackers: Mapping[str, TrackerRecord]) -> dict[str, str]:
    """The id of the run at each tracker that has one."""
    return {name: record.id for name, record in trackers.items() if record.id}


class PrepareResult(Strict):
    """What the prepare stage made: folder → its ``dataset.json`` (rows, tokens, dropped)."""

    stage: str = "prepare"
    kind: Literal["prepare"] = "prepare"
    tokenizer: Path | None = None
    datasets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seconds: float = 0.0


class Averaged(Strict):
    """One of a mean's models: a stage, by its result's digest, at a step; and the weight that it had."""

    stage: str
    step: int
    digest: str
    weight: float


class TrainResult(Strict):
    """What a training stage made.

    ``stage`` is its name, ``kind`` what it does: unset, what the name says. ``loss`` is the mean of the last logged
    steps in nats per token. ``model_args`` are the arguments that the model was built with, ``parameters`` counts its
    own. ``export`` is the folder that transformers loads (None if the family has no export), ``inheritance`` the table
    of an sft. With LoRA ``trainable_parameters`` counts adapters and saved modules (None: all parameters are trained),
    ``checkpoint`` holds these alone, ``export`` has them merged, and ``adapter`` is the folder that ``peft`` loads, if
    one was asked for. ``base_model`` is the Hub's repository that training started from (empty if none).
    ``mean_of`` are the models that were averaged (none for one that was trained); ``best`` says why it is this one.
    With ``ema`` the weights of ``checkpoint`` and ``export`` are the moving mean of the trained ones, whose
    ``validation_loss`` it is. ``peak_memory_bytes`` is the first rank's in its last attempt (None if that only
    exported).
    """

    stage: str
    kind: TrainedKind
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
    ema: float | None = None
    tokenizer: Path | None = None
    tokenizer_digest: str = ""
    export: Path | None = None
    export_digests: dict[str, str] = Field(default_factory=dict)
    parity: dict[str, float] = Field(default_factory=dict)
    adapter: Path | None = None
    inheritance: list[InheritanceRow] = Field(default_factory=list)
    base_model: str = ""
    mean_of: list[Averaged] = Field(default_factory=list)
    best: Best | None = None
    trackers: dict[str, TrackerRecord] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _named_after_its_kind(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values if "kind" in values else {**values, "kind": KIND_OF.get(str(values.get("stage")))}


class Greedy(Strict):
    """A model's greedy continuation of a prompt, in token ids: a copy of the model is recognised by it."""

    prompt: list[int]
    continuation: list[int]


class EvaluateResult(Strict):
    """Scores of each model side by side.

    ``scores[model][task][metric]`` is a number (beside it ``metric_stderr``), ``digests[model][file]`` the sha256 of an
    evaluated file, ``greedy[model]`` the model's continuation of a prompt, ``cut[model][task]`` the prompts that didn't
    fit. ``reference[task]`` is the bits per byte that ``xz`` needs for the task's text. ``part`` names the held-out
    rows that the prepared items are, ``left_out`` counts its rows that can't be items, by reason. ``contamination``
    says which items the models were trained on (None if nobody looked). ``best[model]`` says which checkpoint a model
    is, and why, if it is the best of a training. With the backend ``native`` folders and digests are those of
    checkpoints, and nothing publishable was scored.
    """

    stage: str = "evaluate"
    kind: Literal["evaluate"] = "evaluate"
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
    best: dict[str, Best] = Field(default_factory=dict)
    reference: dict[str, float] = Field(default_factory=dict)
    examples: list[dict[str, str]] = Field(default_factory=list)
    limit: float | None = None
    part: str = ""
    left_out: dict[str, int] = Field(default_factory=dict)
    contamination: Contamination | None = None
    seeds: dict[str, int] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
    trackers: dict[str, TrackerRecord] = Field(default_factory=dict)

    @property
    def left_out_text(self) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        return f"Of the rows that were held out, {reasons} were left out as items." if reasons else ""


class Comparison(Strict):
    """One metric of one task: the model's samples beside those of the last published model.

    ``difference`` is that of the scores over ``pairs`` samples, above 0 if the new model is better. ``low`` and
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

    ``against`` names what it was compared with: a commit of the Hub, the run in a folder, or nothing if none was
    published yet. A comparison passes if its lower bound, at ``confidence``, is above ``margin``.
    """

    passed: bool
    reason: str
    against: str = ""
    confidence: float = 0.95
    margin: float = 0.0
    thresholds: list[Threshold] = Field(default_factory=list)
    comparisons: list[Comparison] = Field(default_factory=list)


class GgufFile(Strict):
    """A published GGUF file, and what was found when llama.cpp and the evaluated model did the same with it.

    ``texts`` had equal tokens, ``composed`` of them once they were brought into NFC; ``conversations`` were rendered
    alike. At ``positions`` places ``agreement`` is the share of equal likeliest tokens, ``mean_kl`` the divergence of
    the next token's probabilities in nats, and ``largest_difference`` that of one probability. Of tokens that llama.cpp
    generated, ``greedy_tokens`` were the model's before the two parted at a near tie.
    """

    format: str
    texts: int
    composed: int
    conversations: int
    positions: int
    agreement: float
    mean_kl: float
    largest_difference: float
    greedy_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.texts:,} texts have the same tokens in llama.cpp, the likeliest next token is the same at "
            f"{self.agreement:.1%} of {self.positions:,} places, and the mean KL divergence is {self.mean_kl:.1g} nats"
        )


LEFT = ("published", "proposed")
"""The statuses of a publication that has left a model somewhere."""


class PublishResult(Strict):
    """Where the model was published: a folder, or a repository's commit and tag.

    ``status`` is ``held back`` if the gate refused the model, and ``dry run`` if nothing was to be written;
    ``location`` is then where it would have gone. A ``proposed`` model waits for review: ``pull_request`` is its URL,
    nothing is tagged. ``gguf`` has the files for llama.cpp by name.
    """

    stage: str = "publish"
    kind: Literal["publish"] = "publish"
    target: Literal["folder", "hub"]
    status: Literal["published", "proposed", "held back", "dry run"] = "published"
    location: str
    repo_id: str = ""
    commit: str = ""
    tag: str = ""
    pull_request: str = ""
    gate: GateDecision | None = None
    files: dict[str, str] = Field(default_factory=dict)
    gguf: dict[str, GgufFile] = Field(default_factory=dict)
    seconds: float = 0.0


StageResult = PrepareResult | TrainResult | EvaluateResult | PublishResult
_RESULT: TypeAdapter[StageResult] = TypeAdapter(Annotated[StageResult, Field(discriminator="kind")])


def samples_file(folder: Path, model: str, task: str) -> Path:
    """A task's items in an evaluation's folder, one a line, with the model's answers; not there if they aren't kept."""
    return folder / f"samples_{model}_{task}.jsonl"


def write_result(folder: Path, result: BaseModel) -> None:
    """Writes ``result.json``, the mark of a finished stage."""
    write_text_atomically(Path(folder) / RESULT_FILE, result.model_dump_json(indent=2) + "\n")


def read_result(folder: Path) -> StageResult:
    """Reads a stage's ``result.json``, also of a run that was moved or copied.

    Raises:
        DataError: it isn't there or can't be read, or another version wrote it.
    """
    path = folder / RESULT_FILE
    raw, written = read_mapping(path), _written_for(folder)
    with readable(path):
        return _RESULT.validate_python(told_from(raw, written, folder.resolve()))


def result_of(folder: Path) -> StageResult | None:
    """The result of a stage's folder; None if the stage hasn't finished."""
    return read_result(folder) if (folder / RESULT_FILE).is_file() else None


def _written_for(folder: Path) -> Path:
    """A stage's folder by its ``run.yaml``, of which only that line is parsed; its own if there is no file."""
    path = folder / RUN_FILE
    with readable(path):
        found = _FOLDER_LINE.search(path.read_text(encoding="utf-8")) if path.is_file() else None
        return Path(parse_yaml(found[0])["folder"]) if found else folder.resolve()


def is_stderr(metric: str) -> bool:
    """Whether a key is a standard error's: ``acc_stderr``, or with a filter ``exact_match_stderr,strict-match``."""
    return metric.split(",", 1)[0].endswith(STDERR)


def counted(rows: Iterable[InheritanceRow]) -> str:
    """How many settings there are of each kind: ``inherited 21, kept 6, changed 6``."""
    kinds = [row.how for row in rows]
    return ", ".join(f"{how} {kinds.count(how)}" for how in dict.fromkeys(("inherited", "kept", "changed", *kinds)))
