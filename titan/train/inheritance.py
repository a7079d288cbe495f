"""What a fine-tuning stage takes from its base, and what it may not change.

Architecture, tokenizer and weights are the base's; everything else is the stage's own. This needs no torch, so a plan
can say so before anything runs.
"""

from __future__ import annotations

from typing import Any

from titanflow.architectures.base import FOLLOWS_SEQ_LEN, BaseArchitecture, free_rope, may_differ, tokenizer_digest
from titanflow.architectures.new_tokens import new_tokens, token_rows, vocabulary
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.model_args import families_hint
from titanflow.files.yaml_source import flatten
from titanflow.planning.origin.inheritance import inheritance_table
from titanflow.runs.contract import StageRun
from titanflow.runs.results import InheritanceRow

LONGER = "set training.allow_longer_context: true, or model.change_rope: true with another RoPE"


def check_inheritance(base: BaseArchitecture, run: StageRun) -> list[InheritanceRow]:
    """Compares a fine-tuning stage with its base; returns the table of what it keeps and changes.

    A ConfigError names each difference that isn't allowed, with both values and the line of the stage's.
    """
    problems = [*_architecture_problems(base, run), *_tokenizer_problems(base, run), *_length_problems(base, run)]
    if problems:
        raise ConfigError(run.placed(problems))
    return inheritance_table(base, run)


def inherited_args(base: BaseArchitecture, run: StageRun) -> dict[str, Any]:
    """The arguments of a checked stage's model: the base's, with the stage's own mutable ones.

    ``max_seq_len`` is at least the length of the stage's rows, which has been checked.
    """
    args = flatten(base.model_args)
    args |= {key: value for key, value in flatten(run.model_overrides).items() if may_differ(key, run.config)}
    if new_tokens(run):
        args["vocab_size"] = token_rows(args["vocab_size"], run)
    if args.get(FOLLOWS_SEQ_LEN):
        args[FOLLOWS_SEQ_LEN] = max(args[FOLLOWS_SEQ_LEN], _seq_len(run))
    return args


def _only_adds(base: BaseArchitecture, run: StageRun) -> bool:
    """Whether the stage's tokenizer is the base's plus the new tokens, and nothing else."""
    added = set(new_tokens(run))
    if not added:
        return False
    before, after = vocabulary(base.tokenizer), vocabulary(run.tokenizer)
    return {key: after.get(key) for key in before} == before and set(after) - set(before) == added


def _seq_len(run: StageRun) -> int:
    return (run.config.get("training") or {}).get("seq_len") or 0


def _architecture_problems(base: BaseArchitecture, run: StageRun) -> list[Problem]:
    model = run.config.get("model") or {}
    own = {key: model[key] for key in ("name", "flavor") if model.get(key)}
    theirs = {"name": base.model_name, "flavor": base.flavor}
    args, overrides = flatten(base.model_args), flatten(run.model_overrides)
    for key, value in overrides.items():
        if key in args and key != FOLLOWS_SEQ_LEN and not may_differ(key, run.config):
            own[key], theirs[key] = value, args[key]
    unknown = [
        Problem(
            f"{base.stage}'s model has no argument {key!r}",
            key=f"model.{key}",
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
            hint=f"leave it out, or set it in {base.stage} and pretrain again{free_rope(key)}",
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
            hint="a model reads only the tokens that it was trained with: leave tokenizer.path out",
        )
    ]


def _length_problems(base: BaseArchitecture, run: StageRun) -> list[Problem]:
    seq_len, model, training = (_seq_len(run), *(run.config.get(name) or {} for name in ("model", "training")))
    is_allowed = training.get("allow_longer_context") or model.get("change_rope")
    if is_allowed or not base.seq_len or seq_len <= base.seq_len:
        return []
    return [
        Problem(
            f"found {seq_len}, but {base.stage} was trained with {base.seq_len}",
            key="training.seq_len",
            expected=f"at most {base.seq_len}",
            hint=f"to train positions that it has never seen, {LONGER}",
        )
    ]
