"""A table of edits of a finished run: which stages a plan has to call STALE, and what changed, and where.

Each edit is made in the files of finished runs and taken back.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain_experiment import write_chain
from tiny_experiment import EXPERIMENT

import titanflow
from titanflow.planning.stage_plan import Plan

STAGES = ["prepare", "pretrain", "sft", "evaluate", "publish"]
FAMILY = "class Family:\n    pass\n"
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
CACHED = dict.fromkeys(STAGES, "CACHED")
FROM_PRETRAIN, FROM_SFT, FROM_EVALUATE = (CACHED | dict.fromkeys(STAGES[first:], "STALE") for first in (1, 2, 3))
PREPARED_ANEW = {"prepare": "RUN"}


@dataclass
class Place:
    """The finished runs' files, below ``root``."""

    root: Path
    monkeypatch: pytest.MonkeyPatch

    def edit(self, name: str, old: str, new: str) -> None:
        """Replaces a text that stands in a file once."""
        path = self.root / name
        text = path.read_text()
        assert text.count(old) == 1, (name, old)
        path.write_text(text.replace(old, new))

    def append(self, name: str, text: str) -> None:
        """Adds to a file, which need not be there."""
        path = self.root / name
        path.write_text((path.read_text() if path.exists() else "") + text)

    def at(self, name: str, text: str) -> str:
        """``file:line`` of the first line that holds a text."""
        lines = (self.root / name).read_text().splitlines()
        return f"{self.root / name}:{1 + next(number for number, line in enumerate(lines) if text in line)}"


@dataclass
class Edit:
    """An edit, and what the plan has to say of it: states, and of each stage its own changes.

    ``changes`` are (key, old, new, origin); ``@file:text`` is the place of a line.
    """

    name: str
    make: Callable[[Place], Any]
    states: dict[str, str]
    changes: dict[str, list[tuple[str, Any, Any, str]]] = field(default_factory=dict)
    overrides: Any = ()
    experiment: str = "tiny"
    run: str | None = None


EXPERIMENT_FILE, MINE = "configs/experiments/tiny.yaml", "configs/experiments/mine.yaml"


def nothing(place: Place) -> None:
    """Where the edit is none of a file."""


EDITS = [
    Edit(
        "a leaf in a module file",
        lambda place: place.append("configs/modules/sft.yaml", "lr_scheduler: {decay_type: cosine}\n"),
        FROM_SFT,
        {"sft": [("sft.lr_scheduler.decay_type", "linear", "cosine", "@configs/modules/sft.yaml:cosine")]},
    ),
    Edit(
        "a leaf in a model file",
        lambda place: place.edit("configs/models/tiny.yaml", "n_layers: 2", "n_layers: 3"),
        FROM_PRETRAIN,
        {
            "pretrain": [("pretrain.model.n_layers", 2, 3, "@configs/models/tiny.yaml:n_layers")],
            "sft": [("sft.model.n_layers", 2, 3, "inherited from pretrain")],
        },
    ),
    Edit(
        "a leaf in a data file",
        lambda place: place.append("configs/data/chats.yaml", "limit: 20\n"),
        {**FROM_SFT, **PREPARED_ANEW},
        {"sft": [("sft.data.limit", None, 20, "@configs/data/chats.yaml:limit")]},
    ),
    Edit(
        "an override of the experiment",
        lambda place: place.edit(EXPERIMENT_FILE, "seed: 7", "seed: 8"),
        FROM_SFT,
        {"sft": [("sft.debug.seed", 7, 8, f"@{EXPERIMENT_FILE}:seed")]},
    ),
    Edit(
        "params.model_overrides",
        lambda place: place.edit(EXPERIMENT_FILE, "model.n_heads: 2", "model.n_heads: 4"),
        FROM_PRETRAIN,
        {
            "pretrain": [("pretrain.model.n_heads", 2, 4, f"@{EXPERIMENT_FILE}:n_heads")],
            "sft": [("sft.model.n_heads", 2, 4, "inherited from pretrain")],
        },
    ),
    Edit(
        "--set",
        nothing,
        FROM_EVALUATE,
        {"evaluate": [("evaluate.num_fewshot", None, 1, "--set evaluate.num_fewshot=1")]},
        ["evaluate.num_fewshot=1"],
    ),
    Edit(
        "a flow's parameter",
        nothing,
        FROM_SFT,
        {"sft": [("sft.training.steps", 8, 9, "flow parameter sft.training.steps")]},
        {"sft.training.steps": 9},
    ),
    Edit(
        "an included file",
        lambda place: place.edit("configs/modules/shared.yaml", "0.05", "0.1"),
        FROM_PRETRAIN,
        {"pretrain": [("pretrain.optimizer.weight_decay", 0.05, 0.1, "@configs/modules/shared.yaml:weight_decay")]},
    ),
    Edit(
        "an environment variable",
        lambda place: place.monkeypatch.setenv("WARMUP", "3"),
        FROM_SFT,
        {"sft": [("sft.lr_scheduler.warmup_steps", 2, 3, f"@{EXPERIMENT_FILE}:WARMUP ($WARMUP)")]},
    ),
    Edit(
        "the data's content",
        lambda place: place.append("text.txt", "One line more.\n"),
        {**FROM_PRETRAIN, **PREPARED_ANEW},
        {"pretrain": [("pretrain.data.path: {root}/text.txt", "sha256 ", "sha256 ", "@configs/data/text.yaml:path")]},
    ),
    Edit(
        "a data file more in a folder",
        lambda place: shutil.copy(place.root / "chats/chats.jsonl", place.root / "chats/more.jsonl"),
        {**FROM_SFT, **PREPARED_ANEW},
        {"sft": [("sft.data.path: {root}/chats/more.jsonl", None, "sha256 ", "@configs/data/chats.yaml:path")]},
    ),
    Edit(
        "a data file that is renamed is the same data",
        lambda place: (place.root / "chats/chats.jsonl").rename(place.root / "chats/talks.jsonl"),
        CACHED,
    ),
    Edit(
        "the tokenizer that is given",
        lambda place: place.edit("tokenizer/tokenizer.json", "{}", '{"other": 1}'),
        {**FROM_PRETRAIN, **PREPARED_ANEW},
        {"pretrain": [("pretrain.tokenizer.path: tokenizer.json", "{sha:{}}", '{sha:{"other": 1}}', "{tokenizer}")]},
        run="given",
    ),
    Edit(
        "the vocabulary of the tokenizer that is trained",
        nothing,
        {**FROM_PRETRAIN, **PREPARED_ANEW},
        {"pretrain": [("pretrain.tokenizer.vocab_size", 320, 300, "--set pretrain.tokenizer.vocab_size=300")]},
        ["pretrain.tokenizer.vocab_size=300"],
    ),
    Edit(
        "the template's text",
        lambda place: place.append("template.jinja", "!"),
        {**FROM_SFT, **PREPARED_ANEW},
        {"sft": [("sft.chat.template", TEMPLATE, TEMPLATE + "!", "{template}")]},
        run="template",
    ),
    Edit(
        "the parent's config",
        nothing,
        FROM_PRETRAIN,
        {"pretrain": [("pretrain.optimizer.lr", 0.01, 0.02, "--set pretrain.optimizer.lr=0.02")]},
        ["pretrain.optimizer.lr=0.02"],
    ),
    Edit(
        "the parent's checkpoint is gone",
        lambda place: shutil.rmtree(place.root / "runs/tiny/main/pretrain/checkpoint"),
        {**CACHED, **dict.fromkeys(STAGES[1:], "RUN")},
    ),
    Edit(
        "a task",
        lambda place: place.edit("configs/evals/tiny_colour.yaml", "version: 1.0", "version: 2.0"),
        FROM_EVALUATE,
        {
            "evaluate": [
                ("evaluate.include_path: tiny_colour.yaml", "{any}", "{any}", f"@{EXPERIMENT_FILE}:include_path")
            ]
        },
    ),
    Edit(
        "the version of the code",
        lambda place: place.monkeypatch.setattr(titanflow, "__version__", "99.0"),
        FROM_PRETRAIN,
        {
            stage: [("version.titanflow", titanflow.__version__, "99.0", "installed")]
            for stage in ("pretrain", "sft", "evaluate", "publish")
        },
    ),
    Edit(
        "the code of a family of one's own",
        lambda place: place.append("family.py", "x = 1\n"),
        {"prepare": "CACHED", "pretrain": "STALE"},
        {
            "pretrain": [
                (
                    "code.family.py",
                    f"{{sha:{FAMILY}}}",
                    f"{{sha:{FAMILY}x = 1\n}}",
                    "@configs/experiments/mine.yaml:family",
                )
            ]
        },
        experiment="mine",
    ),
    Edit("launcher and metrics", nothing, CACHED, {}, ["launcher.nproc_per_node=2", "sft.metrics.log_freq=3"]),
    Edit("a comment", lambda place: place.edit(EXPERIMENT_FILE, "modules:", "# Why.\nmodules:"), CACHED),
    Edit(
        "another order of keys, and space",
        lambda place: place.edit("configs/models/tiny.yaml", "dim: 32, n_layers: 2", "n_layers:   2, dim: 32"),
        CACHED,
    ),
    Edit(
        "a key that is removed: back to the module file's",
        lambda place: place.edit(EXPERIMENT_FILE, ", examples: 1", ""),
        FROM_EVALUATE,
        {"evaluate": [("evaluate.examples", 1, 3, "default")]},
    ),
]


def write_edited(root: Path) -> Path:
    """Writes the experiments ``tiny``, ``mine`` and ``chain`` below ``root``; returns that."""
    configs = write_chain(root)
    (root / "chats").mkdir()
    (root / "chats.jsonl").rename(root / "chats/chats.jsonl")
    (configs / "data/chats.yaml").write_text(f"kind: chat\npath: {root}/chats\n")
    (configs / "modules/shared.yaml").write_text("optimizer: {weight_decay: 0.05}\n")
    path = configs / "modules/pretrain.yaml"
    path.write_text(path.read_text().replace("]", ", shared.yaml]"))
    (root / "tokenizer").mkdir()
    given = {"tokenizer/tokenizer.json": "{}", "tokenizer/tokenizer_config.json": "{}"}
    for name, text in {**given, "template.jinja": TEMPLATE, "family.py": FAMILY}.items():
        (root / name).write_text(text)
    text = EXPERIMENT.format(root=root)
    pretrain, marker, sft = text.partition("  sft:\n")
    pretrain += "    params: {model_overrides: {model.n_heads: 2}}\n"
    sft = sft.replace("warmup_steps: 2", 'warmup_steps: "${WARMUP:2}"', 1)
    sft = sft.replace("checkpoint: {interval: 4}\n", "checkpoint: {interval: 4}\n      debug: {seed: 7}\n", 1)
    (configs / "experiments/tiny.yaml").write_text(pretrain + marker + sft)
    mine = yaml.safe_load(EXPERIMENT.format(root=root))["modules"]["pretrain"]
    del mine["model"]
    mine["overrides"] |= {
        "model": {"name": "mine", "flavor": "small"},
        "experimental": {"custom_import": "family"},
        "tokenizer": {"vocab_size": 320},
    }
    experiment = {"exp_name": "mine", "workspace": f"{root}/runs", "modules": {"pretrain": mine}}
    (configs / "experiments/mine.yaml").write_text(yaml.safe_dump(experiment))
    return root


GIVEN = {
    "given": ["pretrain.tokenizer.path={root}/tokenizer", "evaluate.chat=false"],
    "template": ["sft.chat.template={root}/template.jinja"],
}


@contextmanager
def edited(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The finished runs; whatever the block does to their files is taken back."""
    monkeypatch.syspath_prepend(finished)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    yield Place(finished, monkeypatch)
    for path in {path for path in finished.rglob("*") if path.is_file()} - before.keys():
        path.unlink()
    for path, content in before.items():
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def own_changes(plan: Plan) -> dict[str, list[tuple[str, Any, Any, str]]]:
    """Of each stage what changed, but for the stages before it."""
    own = {stage.stage: [one for one in stage.changes if not one.parent] for stage in plan.stages}
    return {stage: [(one.key, one.old, one.new, one.origin) for one in found] for stage, found in own.items() if found}


def matches(value: Any, said: Any) -> bool:
    """A value against what a table says of it: itself, how a text begins, or the digest of a text."""
    if isinstance(said, str) and said.startswith("{sha:"):
        return bool(value == hashlib.sha256(said[5:-1].encode()).hexdigest())
    if said == "{any}":
        return isinstance(value, str)
    return bool(value == said) or (said == "sha256 " and str(value).startswith(said))


def where(place: Place, origin: str, given: list[str]) -> str:
    """The place that a table names, with its line."""
    if origin.startswith("@"):
        name, _, text = origin[1:].partition(":")
        text, _, after = text.partition(" (")
        return place.at(name, text) + (f" ({after}" if after else "")
    return f"--set {given[0]}" if origin.startswith("{") else origin
