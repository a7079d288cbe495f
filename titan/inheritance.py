"""What a fine-tuning stage takes from its base, and what it may not change.

Architecture, tokenizer and weights are the base's; everything else is the stage's own. Without torch, so that a
plan can say so before anything runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titanflow.base_model import FOLLOWS_SEQ_LEN, TOKENIZER_FILE, BaseArchitecture, is_mutable, tokenizer_digest
from titanflow.config.model_args import families_hint
from titanflow.config.yaml_source import flatten
from titanflow.errors import ConfigError, Problem
from titanflow.stage import StageRun

SECTIONS = (
    "training",
    "chat",
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

NOT_INHERITED = "Not inherited: optimizer state, scheduler, step, data position"


@dataclass(frozen=True)
class InheritanceTable:
    """What is the base's (``inherited``) and what is not (``changed``), a line each, for people."""

    inherited: list[str]
    changed: list[str]

    def __str__(self) -> str:
        return "\n".join([*self.inherited, *self.changed, NOT_INHERITED])


def check_inheritance(base: BaseArchitecture, run: StageRun) -> InheritanceTable:
    """Compares a fine-tuning stage with its base.

    Raises:
        ConfigError: another model or flavor, another value of an argument, another tokenizer, or rows longer than
            the base was trained on (unless ``sft.allow_longer_context`` is set). Every difference is named, with
            both values and where the stage's was written.
    """
    problems = [*_architecture_problems(base, run), *_tokenizer_problems(base, run), *_length_problems(base, run)]
    if problems:
        raise ConfigError(problems)
    changed = _changed_args(base, run)
    lines = [*_changed_lines(base, run, changed), *_longer(base, run), *_grown(base, run)]
    return InheritanceTable(_inherited(base, run, changed), lines)


def inherited_args(base: BaseArchitecture, run: StageRun) -> dict[str, Any]:
    """The arguments that a checked stage builds its model with: the base's, with the stage's own mutable ones.

    ``max_seq_len`` is at least the stage's rows: that they may be so long has been checked.
    """
    args = flatten(base.model_args)
    args |= {key: value for key, value in flatten(run.model_overrides).items() if is_mutable(key)}
    if new_tokens(run):
        args["vocab_size"] = token_rows(args["vocab_size"], run)
    if args.get(FOLLOWS_SEQ_LEN):
        args[FOLLOWS_SEQ_LEN] = max(args[FOLLOWS_SEQ_LEN], _seq_len(run))
    return args


def new_tokens(run: StageRun) -> list[str]:
    """The control tokens that the stage adds to its base's."""
    return list((run.config.get("sft") or {}).get("new_special_tokens") or [])


def token_rows(rows: int, run: StageRun) -> int:
    """How many rows for tokens the stage's model has, where its base has ``rows``: more only if new ones need them."""
    return max(rows, tokenizer_size(run) if new_tokens(run) else 0)


def tokenizer_size(run: StageRun) -> int:
    """How many embeddings a stage's tokenizer needs: its highest id and one; 0 without a tokenizer."""
    return max(_vocabulary(run.tokenizer).values(), default=-1) + 1


def _vocabulary(folder: Path | None) -> dict[str, int]:
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE if folder else None
    if path is None or not path.is_file():
        return {}
    return dict(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True))


def _only_adds(base: BaseArchitecture, run: StageRun) -> bool:
    """Whether the stage's tokenizer is the base's with the new tokens behind it, and nothing else."""
    added = set(new_tokens(run))
    if not added:
        return False
    before, after = _vocabulary(base.tokenizer), _vocabulary(run.tokenizer)
    return {key: after.get(key) for key in before} == before and set(after) - set(before) == added


def _seq_len(run: StageRun) -> int:
    return (run.config.get("training") or {}).get("seq_len") or 0


def _architecture_problems(base: BaseArchitecture, run: StageRun) -> list[Problem]:
    model = run.config.get("model") or {}
    own = {key: model[key] for key in ("name", "flavor") if model.get(key)}
    theirs = {"name": base.model_name, "flavor": base.flavor}
    args, overrides = flatten(base.model_args), flatten(run.model_overrides)
    for key, value in overrides.items():
        if key in args and key != FOLLOWS_SEQ_LEN and not is_mutable(key):
            own[key], theirs[key] = value, args[key]
    unknown = [
        Problem(
            f"{base.stage}'s model has no argument {key!r}",
            key=f"model.{key}",
            origin=run.origins.get(f"model.{key}", ""),
            expected=", ".join(sorted(args)),
            hint=families_hint(key),
        )
        for key in overrides
        if args and key not in args
    ]
    return unknown + [
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
    if not own or not base.tokenizer_digest or own == base.tokenizer_digest or _only_adds(base, run):
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
    seq_len = _seq_len(run)
    if _may_be_longer(run) or not base.seq_len or seq_len <= base.seq_len:
        return []
    return [
        Problem(
            f"found {seq_len}, but {base.stage} was trained with {base.seq_len}",
            key="training.seq_len",
            origin=run.origins.get("training.seq_len", ""),
            expected=f"at most {base.seq_len}",
            hint="to train positions that it has never seen, set sft.allow_longer_context: true",
        )
    ]


def _may_be_longer(run: StageRun) -> bool:
    return bool((run.config.get("sft") or {}).get("allow_longer_context"))


def _inherited(base: BaseArchitecture, run: StageRun, changed: dict[str, Any]) -> list[str]:
    values = {"model": base.model_name, "flavor": base.flavor, **flatten(base.model_args)}
    left_out = {FOLLOWS_SEQ_LEN, *changed, *(["vocab_size"] if new_tokens(run) else [])}
    shown = {key: value for key, value in values.items() if key not in left_out and not key.startswith("_")}
    if base.tokenizer:
        shown["tokenizer"] = base.tokenizer.name
    if base.checkpoint:
        shown["weights"] = base.checkpoint.name
    return [f"Inherited {key}={value} from {base.stage}" for key, value in shown.items()]


def _changed_args(base: BaseArchitecture, run: StageRun) -> dict[str, Any]:
    args = flatten(base.model_args)
    own = {key: value for key, value in flatten(run.model_overrides).items() if is_mutable(key)}
    return {key: value for key, value in own.items() if value != args.get(key)}


def _changed_lines(base: BaseArchitecture, run: StageRun, changed: dict[str, Any]) -> list[str]:
    args = flatten(base.model_args)
    lines = [
        f"model.{key}: {_shown(args.get(key))} → {_shown(value)}{_from(run.origins.get(f'model.{key}', ''))}"
        for key, value in changed.items()
    ]
    own, theirs = ({key: flatten(config.get(key) or {}) for key in SECTIONS} for config in (run.config, base.config))
    for section in SECTIONS:
        for key, value in own[section].items():
            before = theirs[section].get(key)
            if base.config and value != before:
                origin = run.origins.get(f"{section}.{key}", "")
                lines.append(f"{section}.{key}: {_shown(before)} → {_shown(value)}{_from(origin)}")
    return lines


def _longer(base: BaseArchitecture, run: StageRun) -> list[str]:
    if not base.seq_len or _seq_len(run) <= base.seq_len:
        return []
    return [f"Longer context than {base.stage}'s {base.seq_len}, by sft.allow_longer_context"]


def _grown(base: BaseArchitecture, run: StageRun) -> list[str]:
    if not new_tokens(run):
        return []
    rows = base.model_args.get("vocab_size", 0)
    shown = ", ".join(new_tokens(run))
    return [f"model.vocab_size: {rows} → {token_rows(rows, run)}, with {shown}, by sft.new_special_tokens"]


def _shown(value: Any) -> str:
    if isinstance(value, str) and value.startswith(("/", "~")):
        # The lines are published with the model, and a machine's paths are nobody's business.
        return value.rpartition("/")[2]
    return "unset" if value is None else str(value)


def _from(origin: str) -> str:
    return f" from {origin.rpartition('/')[2]}" if origin else ""
