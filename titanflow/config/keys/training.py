"""This project's additions to torchtitan's configuration.

``TRAINING_SECTIONS`` reach torchtitan's ``JobConfig`` through its custom config module (:mod:`titan.train.job_config`).
Plain dataclasses without torch, so that a plan can check a config in a fraction of a second. The string below a field
is its documentation, as in torchtitan's own ``job_config.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from titanflow.config.keys.beside.during import During
from titanflow.config.keys.beside.samples import Samples
from titanflow.config.keys.launcher import Launcher
from titanflow.config.keys.optimizer import OptimizerAdditions
from titanflow.config.keys.training_section import TrainingAdditions

Document = Literal["file", "paragraph", "line"]
Part = Literal["train", "dev", "test"]
"""The purposes of a divided source's rows: training, choosing, and the evaluation that is reported."""
PARTS: tuple[Part, ...] = get_args(Part)
RENDERED_KINDS = ("chat", "pairs")
"""The kinds of rows that a chat template renders: each row has its own tokens, and some of them are trained."""


@dataclass
class HeldOut:
    """Rows of a source that are never trained on: a share of its different rows (0.01), or a number of them (200).

    A hash of the row's content decides: neither its place nor other files matter, and equal rows stay together.
    """

    dev: int | float | None = None
    """For validation, and for every choice that is made by scores."""
    test: int | float | None = None
    """For the evaluation that is reported."""


@dataclass
class Source:
    """Where rows come from, exactly one of ``source``, ``path`` and ``dataset``, and how they are read."""

    name: str = ""
    """Name of the prepared folder; by default the data file's own name."""
    kind: Literal["text", "chat", "pairs", "evals"] = "text"
    """Plain documents, conversations, pairs of a chosen and a rejected answer, or the built-in source's evaluation
    items."""
    source: Literal["stdlib", "stdlib_documented", "stdlib_chats", "stdlib_pairs", "stdlib_evals"] | None = None
    """A built-in source: the running interpreter's standard library."""
    path: str | list[str] | None = None
    """Local files, folders or patterns: .txt, .md, .rst, .py, .jsonl, .json, .csv, .tsv, each also with .gz, .bz2, .xz
    or .zst behind, and .parquet."""
    document: Document = "file"
    """What counts as a document in plain text: the whole file, the text between blank lines, or a line."""
    dataset: str | None = None
    """A dataset on the Hugging Face Hub, or a folder that `datasets` loads."""
    config: str | None = None
    """The dataset's configuration, where it has several."""
    split: str = "train"
    """The dataset's split."""
    revision: str | None = None
    """The dataset's revision on the Hub: a branch, a tag or a commit."""
    text_column: str = "text"
    """The column that holds a document."""
    chat_format: Literal["messages", "sharegpt", "alpaca", "prompt_completion"] = "messages"
    """How a conversation is laid out (`kind: chat`). Pairs have their sides as `messages` or `sharegpt`."""
    columns: dict[str, str] = field(default_factory=dict)
    """Other names of the layout's columns and of the keys of a message: {messages: chat, role: speaker}."""
    roles: dict[str, str] = field(default_factory=dict)
    """Names of roles beside the layout's own: {bot: assistant}."""
    leave_out: list[str] = field(default_factory=list)
    """Columns of a row and keys of a message that are taken as absent: [reasoning_content, name]."""
    malformed: Literal["error", "drop"] = "error"
    """Whether a row that can't be trained on stops the run, or is left out and counted."""
    overlong: Literal["drop", "truncate_left", "truncate_right", "error"] = "drop"
    """What happens to a conversation, or a side of a pair, of more than `training.seq_len` tokens; truncating cuts off
    its left or right."""
    packing: Literal["best_fit"] | None = None
    """Put several conversations into a row, kept apart in attention and positions; unset, each is its own row."""
    held_out: HeldOut = field(default_factory=HeldOut)
    """Rows to keep from training, each a share or a number: {dev: 0.01, test: 200}; a built-in source has its own."""
    part: Part | None = None
    """Which part of a divided source is read; unset, `data` trains on the rest, `validation_data` reads dev, and
    evaluation items are made of test. Only evaluation has a choice: dev or test."""
    license: str | None = None
    """The rows' licence, for the card of a model that is trained on them: an identifier of SPDX or of the Hub. Unset, a
    Hub dataset's own card is asked; where that says nothing, the card says "not stated"."""
    link: str | None = None
    """Where the rows come from, for the card: https://…"""
    limit: int | None = None
    """Read only this many documents or conversations, the first ones, at least 1; unset, all of them."""
    streaming: bool = False
    """Read while training instead of preparing first: for data too large for a disk. Tied to the number of ranks."""

    def __post_init__(self) -> None:
        # A resolved config has its sections as mappings, and null where one is left empty.
        if not isinstance(self.held_out, HeldOut):
            self.held_out = HeldOut(**(self.held_out or {}))


@dataclass
class MixtureSource(Source):
    """One source of a mixture; keys that it doesn't set are those of the ``data`` section around it."""

    weight: float = 1.0
    """Its share relative to the other sources (`interleave`)."""
    epochs: float = 1.0
    """How often its rows are read before it is exhausted."""


@dataclass
class Phase:
    """A part of the training in which a mixture has weights of its own."""

    until: float
    """Where it ends, as a share of `training.steps`; the last phase ends at 1."""
    weights: dict[str, float]
    """The share of each source, relative to the others; a source that isn't named isn't read."""


@dataclass
class Mixture:
    """Several sources trained on together; without ``sources`` there is no mixture."""

    sources: dict[str, MixtureSource] = field(default_factory=dict)
    """Each source by its name; `data: file.yaml` takes it from a data file."""
    strategy: Literal["interleave", "concat"] = "interleave"
    """All at once by their weights, or one after another."""
    weights: Literal["rows", "tokens"] = "rows"
    """Whether a weight is a share of the rows or of the tokens."""
    stop: Literal["first_exhausted", "all_exhausted"] = "first_exhausted"
    """When a round of the mixture ends (`interleave`); until the last is exhausted, the others begin again."""
    phases: list[Phase] = field(default_factory=list)
    """Weights that change while the stage trains: [{until: 0.8, weights: {a: 9, b: 1}}, {until: 1.0, weights: {b: 1}}].
    Unset, each source has its own `weight` from the first step to the last."""


@dataclass
class Data(Source):
    """The data to read: one source, or a mixture of several."""

    mixture: Mixture = field(default_factory=Mixture)
    """Several sources in place of one."""


SOURCE_KEYS = ("source", "path", "dataset")
"""The keys that say where rows come from; a section that is no mixture has exactly one of them."""


def names_rows(data: Mapping[str, Any]) -> bool:
    """Whether a ``data`` section says where rows come from."""
    is_mixture = bool((data.get("mixture") or {}).get("sources"))
    return is_mixture or any(data.get(key) for key in SOURCE_KEYS)


def is_divided(data: Mapping[str, Any]) -> bool:
    """Whether the rows of one source have parts: some are held out, or the source is built in."""
    return bool(data.get("source")) or any(value is not None for value in (data.get("held_out") or {}).values())


@dataclass
class Tokenizer:
    """Which tokenizer a model is trained with."""

    path: str | None = None
    """A folder with tokenizer.json, or owner/name on the Hub; unset, `model.hf_assets_path` names it, and where that is
    unset, too, a byte-level BPE is trained on the pretraining text."""
    revision: str | None = None
    """The revision of `path` on the Hub: a branch, a tag or a commit."""
    vocab_size: int | None = None
    """Size of the trained vocabulary; unset, the model's own vocab_size."""
    new_special_tokens: list[str] = field(default_factory=list)
    """Control tokens that an outside base's tokenizer lacks, such as those of a chat template. Where the model has
    no rows for them, embedding and output grow by the mean of the old rows."""


@dataclass
class Chat:
    """How conversations become text."""

    template: str | None = None
    """`chatml`, `llama3`, `zephyr` (which needs no tokens but the end of text), or a .jinja file; unset, the
    tokenizer's own, and chatml where it has none."""
    template_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the template beside the messages: {enable_thinking: false, date_string: "26 Jul 2024"}. The values
    become the exported template's defaults. `strftime_now` is the date to write, as text, in place of today's."""
    tool_arguments: Literal["mapping", "text"] = "mapping"
    """Whether the template gets the arguments of a call as a mapping or as their JSON, which DeepSeek's ask for."""
    turns: Literal["all", "last", "each"] = "all"
    """Which of the assistant's turns are trained; a turn with `train: false` never is. `each` makes a row of every
    turn, after the history that a model gets: for templates that render a turn differently once more follows."""
    proof_rows: int | None = None
    """The number of rows, from the first, whose mask is proved; unset, all of them."""


@dataclass
class Lora:
    """Low-rank adapters (LoRA, arXiv:2106.09685) beside a frozen base: fine-tuning that trains a few percent of it."""

    rank: int = 0
    """Rank of the adapters; 0 trains the model itself."""
    alpha: float = 16.0
    """The adapters' output is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of an adapter's inputs that is dropped in training."""
    target_modules: list[str] | None = None
    """Linear layers that get an adapter, by the end of their name (`wq`, `attention.wo`) or a pattern
    (`layers.1?.*.w2`); unset, all of attention and feed-forward that the family has, but its routed experts."""
    modules_to_save: list[str] = field(default_factory=list)
    """Modules that are trained and saved whole, named likewise (`output`, `norm`), or by what they are for: `tokens`
    (embeddings and output head) where the base never read the chat template's, `routed` (routers, predictors, priors,
    students) of a mod, dtf or tdtf."""
    rslora: bool = False
    """Scale by alpha / √rank instead (rsLoRA, arXiv:2312.03732)."""
    peft_adapter: bool = False
    """Write a PEFT adapter (the folder `adapter`) beside the export, in which the adapters are merged."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Lora:
        """The section ``lora`` of a training's config."""
        return cls(**(config.get("lora") or {}))


@dataclass
class Prefer:
    """Preference optimisation: the loss over pairs of a chosen and a rejected answer."""

    loss: Literal["dpo", "ipo"] = "dpo"
    """`dpo` (arXiv:2305.18290), or `ipo` (arXiv:2310.12036) on log-probabilities averaged over an answer's tokens."""
    beta: float = 0.1
    """How strongly the model is held to its base: a reward is beta times the log-probability over the base's. For `ipo`
    it is the paper's τ."""
    label_smoothing: float = 0.0
    """The share of the pairs that are taken to be the wrong way round (`dpo` alone): from 0 to below 0.5."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Prefer:
        """The section ``prefer`` of a training's config."""
        return cls(**(config.get("prefer") or {}))


@dataclass
class ModelAdditions:
    """This project's keys inside torchtitan's own ``model`` section."""

    hf_assets_path: str | None = "./tests/assets/tokenizer"
    """The tokenizer, and with `checkpoint.initial_load_in_hf` the weights: a folder, or owner/name on the Hub. Null, or
    unset (torchtitan's default lies in its own sources), names none."""
    hf_assets_revision: str | None = None
    """The revision of `hf_assets_path` on the Hub: a branch, a tag or a commit."""
    change_rope: bool = False
    """Allow another RoPE than the base's, for longer rows: `model.rope_theta`, and what stretches positions where the
    family has it (`rope_scaling_args` of llama3 and llama4, `rope_factor`, which is YaRN's, of deepseek_v3)."""


@dataclass
class CheckpointAdditions:
    """This project's keys inside torchtitan's own ``checkpoint`` section."""

    initial_load_revision: str | None = None
    """The revision of `initial_load_path` on the Hub, which it may name (owner/name) with `initial_load_in_hf`: a
    branch, a tag or a commit."""


@dataclass
class MetricsAdditions:
    """This project's keys inside torchtitan's own ``metrics`` section."""

    enable_trackio: bool = False
    """Log to Trackio: in the workspace, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says."""
    enable_mlflow: bool = False
    """Log to MLflow: in the workspace, or where MLFLOW_TRACKING_URI says."""


@dataclass
class TRAINING_SECTIONS:  # noqa: N801  (a namespace of sections, read like torchtitan's JobConfig)
    """The keys and sections that a training module has beside torchtitan's own."""

    base: str | dict[str, Any] | None = None
    """The model whose architecture, tokenizer and weights are taken: a module, the folder of a finished stage, or a
    model in transformers' format: a folder, or owner/name on the Hub. Of stages before this one also a mean:
    `{mean: [sft_a, sft_b], weights: [0.5, 0.5]}`, or `{mean: {of: pretrain, last: 5}}`. Unset, an sft starts from
    `pretrain`, a pretrain from nothing; a prefer needs one."""
    base_revision: str | None = None
    """The base's revision on the Hub: a branch, a tag or a commit."""
    data: Data = field(default_factory=Data)
    """What to train on."""
    validation_data: Data = field(default_factory=Data)
    """What to validate on; needs `validation.enable`."""
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    """The tokenizer."""
    chat: Chat = field(default_factory=Chat)
    """The chat template."""
    launcher: Launcher = field(default_factory=Launcher)
    """The processes."""
    lora: Lora = field(default_factory=Lora)
    """Fine-tuning by adapters."""
    prefer: Prefer = field(default_factory=Prefer)
    """Preference optimisation (a stage of the kind `prefer`)."""
    during: During = field(default_factory=During)
    """Scores while it trains."""
    samples: Samples = field(default_factory=Samples)
    """Answers while it trains."""
    optimizer: OptimizerAdditions = field(default_factory=OptimizerAdditions)
    """Additions to torchtitan's `optimizer`."""
    training: TrainingAdditions = field(default_factory=TrainingAdditions)
    """Additions to torchtitan's `training`."""
    model: ModelAdditions = field(default_factory=ModelAdditions)
    """Additions to torchtitan's `model`."""
    checkpoint: CheckpointAdditions = field(default_factory=CheckpointAdditions)
    """Additions to torchtitan's `checkpoint`."""
    metrics: MetricsAdditions = field(default_factory=MetricsAdditions)
    """Additions to torchtitan's `metrics`."""
