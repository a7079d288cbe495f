"""The base that a fine-tuning stage starts from, read without torch so that a plan can compare the two.

*Locked* settings are the base's: architecture and tokenizer. Tensor shapes protect few of them, since torchtitan
silently loads whatever fits. *Guarded* settings need a flag of the section ``sft``; all others are the stage's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.common.digests import file_digest
from titanflow.runs.contract import RESULT_FILE, StageKind, StageRun
from titanflow.runs.training import finished_training

FOLLOWS_SEQ_LEN = "max_seq_len"
"""torchtitan sets this argument to training.seq_len, so it is no part of the architecture."""

MUTABLE = re.compile(
    r"(?:.*\.)?(?:attn_type|attn_mask_type|(?:\w+_)?dropout(?:_\w+)?|\w+_loss_weight|beta_(?:start|end|warmup_steps))"
)
"""Arguments that don't change what the weights mean: the attention kernel, dropout, the weights of auxiliary losses,
and the schedule of a teacher's sharpness."""

ROPE = re.compile(r"rope_theta|rope_factor|rope_scaling_args(?:\.\w+)*|original_seq_len|beta_(?:fast|slow)|mscale")
"""Arguments of rotary positions: their base, and how YaRN or llama's scaling stretches them. The *guarded* ones."""

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class BaseArchitecture:
    """What a fine-tuning stage takes from its base.

    ``stage`` is its name in messages, ``kind`` the kind of stage that trained it, if one did. ``model_args`` are all
    arguments of its model, nested like their dataclasses; for a planned model of a family that torchtitan lacks, only
    the overridden ones. ``overrides`` turn the flavor into them. ``folder`` and ``digest`` are where it lies and what
    is in it; a module of the same experiment has neither before it has run. ``in_hf`` says that ``checkpoint`` is in
    transformers' format.
    """

    stage: str
    model_name: str
    flavor: str
    model_args: dict[str, Any]
    seq_len: int
    overrides: dict[str, Any] = field(default_factory=dict)
    tokenizer: Path | None = None
    tokenizer_digest: str = ""
    checkpoint: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    digest: str = ""
    in_hf: bool = False
    kind: StageKind | None = None

    def other_arguments(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """What the base has of the arguments that give its weights their meaning, where ``own`` differs."""
        return {
            key: value
            for key, value in self.model_args.items()
            if key in own and not is_mutable(key) and key != FOLLOWS_SEQ_LEN and _meant(own[key]) != _meant(value)
        }

    @classmethod
    def finished(cls, folder: Path) -> BaseArchitecture:
        """Reads the base from the files of a stage's folder.

        Raises:
            ConfigError: the folder holds no finished training stage, or a file of it can't be read.
        """
        run, result = finished_training(folder)
        return cls(
            stage=run.stage,
            kind=run.kind,
            model_name=result.model_name,
            flavor=result.flavor,
            model_args=result.model_args,
            seq_len=result.seq_len,
            overrides=run.model_overrides,
            tokenizer=result.tokenizer,
            tokenizer_digest=result.tokenizer_digest,
            checkpoint=result.checkpoint,
            config=run.config,
            folder=folder.resolve(),
            digest=file_digest(folder / RESULT_FILE),
        )


def begins_with(run: StageRun) -> Path | None:
    """The base of a fine-tuning, or the model in transformers' format that a pretraining begins with; else None."""
    checkpoint = run.config.get("checkpoint") or {}
    path = checkpoint.get("initial_load_path") if checkpoint.get("initial_load_in_hf") else None
    return run.base or (Path(path) if path else None)


def is_mutable(argument: str) -> bool:
    """Whether a fine-tuning stage may set an argument of the model, by its dotted name."""
    return MUTABLE.fullmatch(argument) is not None


def may_differ(argument: str, config: Mapping[str, Any]) -> bool:
    """Whether a stage with this config may set an argument of its base's model: RoPE's by ``model.change_rope``."""
    return is_mutable(argument) or changes_rope(argument, config)


def changes_rope(argument: str, config: Mapping[str, Any]) -> bool:
    """Whether an argument is RoPE's, by its dotted name, and a stage with this config asks to change that."""
    asked = (config.get("model") or {}).get("change_rope")
    return bool(asked) and ROPE.fullmatch(argument) is not None


def free_rope(argument: str) -> str:
    """The end of a hint that an argument of the base may be another by a flag; empty for one that may not."""
    return "; for longer rows model.change_rope: true lets it differ" if ROPE.fullmatch(argument) else ""


def _meant(value: Any) -> Any:
    """An argument without the fields in which torchtitan notes a stage's ``debug`` section."""
    if not isinstance(value, Mapping):
        return value
    return {key: _meant(inner) for key, inner in value.items() if not key.startswith("_")}


def tokenizer_digest(folder: Path | None) -> str:
    """SHA-256 of a tokenizer's ``tokenizer.json``: equal digests give equal tokens. Empty without a tokenizer."""
    path = Path(folder) / TOKENIZER_FILE if folder else None
    return file_digest(path) if path and path.is_file() else ""
