"""The keys of evaluate and publish, which torchtitan lacks; the string below a field is its documentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from titanflow.config.keys.launcher import Launcher
from titanflow.config.keys.training import Data


@dataclass
class Items(Data):
    """Where evaluation items come from."""

    kind: Literal["text", "chat", "evals"] = "evals"
    """`evals`: files as they are (`path`), which a task's YAML finds below ${data} by name, those of a folder by their
    path in it; or the built-in source's. `text` and `chat`: the rows that a source holds out (`held_out`), as
    ${data}/items.jsonl; unset, a source that holds rows out is text."""


@dataclass
class Evaluate:
    """The evaluate module: lm-evaluation-harness on the exported folders, side by side."""

    tasks: list[str] = field(default_factory=list)
    """Names of tasks, groups or tags: of `include_path`, or of lm-eval's library; or a suite, as `suite/quick`."""
    include_path: str | None = "evals"
    """A folder with your own task files, looked for beside the file that names it, then in the trees of configs."""
    data: Items = field(default_factory=Items)
    """Evaluation items to prepare; a task's YAML names their folder as ${data}."""
    models: list[str] | dict[str, Any] = field(default_factory=lambda: ["base", "sft"])
    """`base` and `sft` of this run, or a mapping from a name to any folder that transformers loads; with the native
    backend to a training stage's folder, or to one checkpoint/step-N of it. `{avg: {mean: [sft_a, sft_b]}}` is the mean
    of two stages, as `means` has it; other stages stand beside it as `sft_a: sft_a`."""
    means: dict[str, Any] = field(default_factory=dict)
    """Models that are means, by the names that `models` has: `{mean: [sft_a, sft_b], weights: [0.5, 0.5]}` of finished
    stages (alike without `weights`), or `{mean: {of: pretrain, last: 5}}` of a stage's last checkpoints."""
    backend: Literal["hf", "native", "vllm"] = "hf"
    """What computes: transformers on the export, torchtitan's own model on a checkpoint (no export needed: for scores
    while it trains), or vLLM, which is installed separately."""
    batch_size: int | str = 16
    """Sequences at a time on each process; or `auto`, or `auto:N` to look for the largest N times. On a CPU more if
    they are short, and fewer if they are so long that batches slow them down. Sampled answers (`gen_kwargs` with a
    temperature) depend on it."""
    limit: float | None = None
    """Items a task (a share of them below 1): for a quick look; the result is marked as limited."""
    num_fewshot: int | None = None
    """Examples in the prompt; unset, the task's own number."""
    chat: bool | Literal["auto"] | list[str] = "auto"
    """Ask through the chat template; `auto` does what each task's metadata says (`chat: true`; tasks of lm-eval's
    library say nothing, and are asked without), a list names the tasks or groups that are asked through it."""
    system_instruction: str | None = None
    """Text before every prompt; with the chat template it is the system message."""
    fewshot_as_multiturn: bool = True
    """Few-shot examples as turns of the conversation."""
    gen_kwargs: dict[str, Any] = field(default_factory=dict)
    """Settings of generation that go before the tasks' own: {do_sample: true, temperature: 0.7}."""
    contamination: Literal["report", "drop", "error", "skip"] = "report"
    """Items that occur in the models' training data: `report` counts them by task, beside the scores of all;
    `drop` doesn't score them; `error` ends the run before anything is trained; `skip` doesn't look."""
    cache_requests: bool = False
    """Keep each answer in the run's folder, under the digest of the model's files, so that the same request of the same
    model is never computed twice."""
    remote_code: dict[str, str] = field(default_factory=dict)
    """Models whose own code may be run: the repository on the Hub, which `models` names in place of a folder, and the
    commit that was read."""
    bootstrap_iters: int = 1000
    """Resamples behind a standard error that has no closed form."""
    seed: int = 1234
    """Seed of everything that draws."""
    device: str | None = None
    """cpu, cuda, cuda:1, …; unset, the first GPU or the CPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The number format of the evaluated weights."""
    log_samples: bool = True
    """Keep each item's prompt, answer and score."""
    wandb: bool = True
    """Log the scores to Weights & Biases (offline unless WANDB_MODE says otherwise)."""
    trackio: bool = False
    """Log the scores to Trackio: in the workspace, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says."""
    mlflow: bool = False
    """Log the scores to MLflow: in the workspace, or where MLFLOW_TRACKING_URI says."""
    examples: int = 3
    """Answers to show in the summary and on the card."""
    launcher: Launcher = field(default_factory=Launcher)
    """The processes: each computes its share of the batches, and the scores are those of one process."""


@dataclass
class Gate:
    """Conditions for publishing a model; with nothing set every model passes."""

    thresholds: dict[str, float] = field(default_factory=dict)
    """The least value of a metric, `task/metric: value`; the most where lower is better."""
    better_than_last: bool = False
    """Whether it must be better than the model published last, by the same samples."""
    tasks: list[str] = field(default_factory=list)
    """The tasks that are compared, on each of which it must be better; unset, all that have the metric."""
    metric: str = "acc"
    """The metric that is compared; `metric,filter` where a task has several filters."""
    margin: float = 0.0
    """How much better it must be, in the metric's own unit; a value below 0 allows it to be so much worse."""
    confidence: float = 0.95
    """How certain it must be: a model no better than the last passes with a chance of at most 1 minus this."""
    resamples: int = 10000
    """Bootstrap resamples of the paired differences."""


@dataclass
class Chosen:
    """Which checkpoint of the published training it is; unset, the last."""

    best: str | None = None
    """`dev/task/metric`: the best by a metric that the training's `during` measured on the dev part; of equal ones the
    earliest. The evaluation exports and scores it as a model of its own, `<model>.best`. It stays beside those of
    `checkpoint.keep_latest_k`."""


@dataclass
class Publish:
    """The publish module: a folder, or one commit and a tag on the Hub."""

    target: Literal["folder", "hub"] = "folder"
    """`folder` writes exactly the files that `hub` would push."""
    folder: str | None = None
    """Where `target: folder` writes; unset, `model` in the stage's folder. `{exp_name}` stands for the experiment's
    name."""
    repo_id: str | None = None
    """owner/name on the Hub."""
    private: bool = True
    """Whether a new repository is private."""
    tag: str | None = None
    """The tag that marks what is published; unset, the run's name, or experiment-run where the branch has that name."""
    model: str = "sft"
    """The module whose export is published."""
    evaluation: str | None = None
    """The evaluate module whose scores the card reports and the gate asks; unset, the one that scores the model."""
    checkpoint: Chosen = field(default_factory=Chosen)
    """Which of its checkpoints, if not the last."""
    license: str = "apache-2.0"
    """The licence's identifier on the Hub; `other` for one that the Hub doesn't list."""
    license_name: str | None = None
    """The name of such a licence: my-license-1.0."""
    license_link: str | None = None
    """Where its text is: https://…"""
    revision: str = "main"
    """The branch that is committed to."""
    commit_message: str | None = None
    """The commit's message; unset, one that names the run."""
    language: list[str] = field(default_factory=list)
    """Languages of the text, as ISO 639 codes (`en`, `deu`), and `code` or `multilingual`."""
    tags: list[str] = field(default_factory=list)
    """Tags on the card."""
    example: str = "What can you tell me?"
    """The question to the model in the card's snippet."""
    gate: Gate = field(default_factory=Gate)
    """When it may be published."""
    own_tasks: bool = True
    """Whether tasks of your own that scored it are published with their items, in `evals/`, so that anyone can make the
    card's scores again; for items that must stay private: false."""
    gguf: list[Literal["f32", "f16", "bf16", "q8_0"]] = field(default_factory=list)
    """Formats of GGUF files for llama.cpp and Ollama, published beside the model once llama.cpp has computed the same
    with them; for llama3, qwen2 and qwen3 without experts. Needs `pip install "titanflow[gguf]"`."""
    sign_key: str | None = None
    """The file of a private key (PEM, elliptic curve) that signs everything that is published, in `model.sig`; the
    password of an encrypted one is in TITANFLOW_SIGN_PASSWORD. Needs `titanflow[sign]`."""
    pull_request: bool = False
    """Open a pull request in place of a commit to the branch; nothing is tagged. Once it is merged, publishing
    without this sets the tag, and commits nothing."""
    dry_run: bool = False
    """Read and check everything, say what would be written, and write nothing."""
    token_block: str | None = None
    """Name of a Prefect Secret block that holds the Hub's token; unset, `HF_TOKEN` or what `hf auth login` stored."""
