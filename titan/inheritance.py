"""What a fine-tuning stage takes from its base, and what it may not change.

Architecture, tokenizer and weights are the base's; everything else is the stage's own. Without torch, so that a
plan can say so before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titan.model_overrides import flatten
from titanflow.errors import ConfigError, Problem
from titanflow.fingerprint import file_digest
from titanflow.stage import StageRun, TrainResult, read_result

SECTIONS = (
    "training",
    "optimizer",
    "lr_scheduler",
    "parallelism",
    "activation_checkpoint",
    "compile",
    "quantize",
    "debug",
    "lora",
)
"""Sections of which the table shows what differs from the base's."""

FOLLOWS_SEQ_LEN = "max_seq_len"
"""torchtitan sets this argument to training.seq_len, so that it is no part of the architecture."""

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class BaseArchitecture:
    """What a base gives to whoever fine-tunes it; ``model_args`` may be partial while it is only planned."""

    stage: str
    model_name: str
    flavor: str
    model_args: dict[str, Any]
    seq_len: int
    tokenizer: Path | None = None
    tokenizer_digest: str = ""
    checkpoint: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def planned(cls, run: StageRun, model_args: Mapping[str, Any] | None = None) -> BaseArchitecture:
        """The base as its own ``run.yaml`` has it, before it has run; ``model_args`` are all of them, if known."""
        model = run.config.get("model") or {}
        return cls(
            stage=run.stage,
            model_name=model.get("name", ""),
            flavor=model.get("flavor", ""),
            model_args=dict(model_args or run.model_overrides),
            seq_len=(run.config.get("training") or {}).get("seq_len", 0),
            tokenizer=run.tokenizer,
            tokenizer_digest=tokenizer_digest(run.tokenizer),
            config=run.config,
        )

    @classmethod
    def finished(cls, folder: Path) -> BaseArchitecture:
        """The base as its ``result.json`` has it.

        Raises:
            ConfigError: the folder holds no finished training stage.
        """
        try:
            result = read_result(folder)
        except FileNotFoundError as error:
            raise ConfigError(
                Problem(f"{folder} holds no result.json", key="sft.base", expected="the folder of a finished stage")
            ) from error
        if not isinstance(result, TrainResult):
            raise ConfigError(Problem(f"{folder} is no training stage", key="sft.base", expected="pretrain or sft"))
        run_file = Path(folder) / "run.yaml"
        return cls(
            stage=result.stage,
            model_name=result.model_name,
            flavor=result.flavor,
            model_args=result.model_args,
            seq_len=result.seq_len,
            tokenizer=result.tokenizer,
            tokenizer_digest=result.tokenizer_digest,
            checkpoint=result.checkpoint,
            config=StageRun.read(run_file).config if run_file.is_file() else {},
        )


@dataclass(frozen=True)
class InheritanceTable:
    """What is the base's (``inherited``) and what is not (``changed``), a line each, for people."""

    inherited: list[str]
    changed: list[str]

    def __str__(self) -> str:
        return "\n".join([*self.inherited, *self.changed])


def tokenizer_digest(folder: Path | None) -> str:
    """SHA-256 of a tokenizer's ``tokenizer.json``: equal digests give equal tokens. Empty without a tokenizer."""
    path = Path(folder) / TOKENIZER_FILE if folder else None
    return file_digest(path) if path and path.is_file() else ""


def check_inheritance(base: BaseArchitecture, run: StageRun) -> InheritanceTable:
    """Compares a fine-tuning stage with its base.

    Raises:
        ConfigError: another model or flavor, another value of an argument, another tokenizer, or rows longer than
            the base was trained on. Every difference is named, with both values and where the stage's was written.
    """
    problems = [*_architecture_problems(base, run), *_tokenizer_problems(base, run), *_length_problems(base, run)]
    if problems:
        raise ConfigError(problems)
    return InheritanceTable(_inherited(base), _changed(base, run))


def _architecture_problems(base: BaseArchitecture, run: StageRun) -> list[Problem]:
    model = run.config.get("model") or {}
    own = {key: model[key] for key in ("name", "flavor") if model.get(key)}
    theirs = {"name": base.model_name, "flavor": base.flavor}
    args = flatten(base.model_args)
    for key, value in flatten(run.model_overrides).items():
        if key in args and key != FOLLOWS_SEQ_LEN:
            own[key], theirs[key] = value, args[key]
    return [
        Problem(
            f"found {value!r}, but {base.stage} has {theirs[key]!r}: fine-tuning can't change the architecture",
            key=f"model.{key}",
            origin=run.origins.get(f"model.{key}", ""),
            hint=f"leave it out, or set it in {base.stage} and pretrain again",
        )
        for key, value in own.items()
        if value != theirs[key]
    ]


def _tokenizer_problems(base: BaseArchitecture, run: StageRun) -> list[Problem]:
    own = tokenizer_digest(run.tokenizer)
    if not own or not base.tokenizer_digest or own == base.tokenizer_digest:
        return []
    return [
        Problem(
            f"{run.tokenizer} is another tokenizer than {base.stage}'s, {base.tokenizer} "
            f"(tokenizer.json {own[:12]}…, not {base.tokenizer_digest[:12]}…)",
            key="tokenizer.path",
            origin=run.origins.get("tokenizer.path", ""),
            hint="a model reads only the tokens that it was trained with: leave tokenizer.path out",
        )
    ]


def _length_problems(base: BaseArchitecture, run: StageRun) -> list[Problem]:
    seq_len = (run.config.get("training") or {}).get("seq_len")
    if not (base.seq_len and seq_len and seq_len > base.seq_len):
        return []
    return [
        Problem(
            f"found {seq_len}, but {base.stage} was trained with {base.seq_len}",
            key="training.seq_len",
            origin=run.origins.get("training.seq_len", ""),
            expected=f"at most {base.seq_len}",
        )
    ]


def _inherited(base: BaseArchitecture) -> list[str]:
    values = {"model": base.model_name, "flavor": base.flavor, **flatten(base.model_args)}
    shown = {key: value for key, value in values.items() if key != FOLLOWS_SEQ_LEN and not key.startswith("_")}
    if base.tokenizer:
        shown["tokenizer"] = base.tokenizer.name
    if base.checkpoint:
        shown["weights"] = base.checkpoint.name
    return [f"Inherited {key}={value} from {base.stage}" for key, value in shown.items()]


def _changed(base: BaseArchitecture, run: StageRun) -> list[str]:
    own, theirs = ({key: flatten(config.get(key) or {}) for key in SECTIONS} for config in (run.config, base.config))
    lines = []
    for section in SECTIONS:
        for key, value in own[section].items():
            before = theirs[section].get(key)
            if base.config and value != before:
                origin = run.origins.get(f"{section}.{key}", "")
                lines.append(f"{section}.{key}: {_shown(before)} → {_shown(value)}{_from(origin)}")
    return lines


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def _from(origin: str) -> str:
    return f" from {origin.rpartition('/')[2]}" if origin else ""
