"""A training stage's model and its weights, read once from its folder and handed on.

A LoRA stage's checkpoint holds what was trained, its base's holds the rest. A base may itself be a LoRA stage, and so
on down to a checkpoint that holds a whole model.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from titan.models.custom_family import import_custom
from titan.models.overrides import override_model_args
from titan.models.registry import model_args_from, train_spec
from titanflow.architectures.base import changes_rope
from titanflow.architectures.huggingface import CONFIG_FILE, described_model, is_hugging_face, own_tokenizer
from titanflow.architectures.new_tokens import new_tokens, token_rows
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.files.chat_template import TEMPLATE_FILE
from titanflow.config.keys.training import Lora
from titanflow.data.dataset_info import is_complete, read_info
from titanflow.files.yaml_source import flatten
from titanflow.runs.checkpoints import METADATA, newest_checkpoint, stored_model
from titanflow.runs.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.runs.manifest import checkpoint_digest
from titanflow.runs.training import Training, read_training


@dataclass(frozen=True)
class StageModel:
    """The model of a training stage: family, ``ModelArgs``, context length and tokenizer."""

    name: str
    args: Any
    seq_len: int
    tokenizer: Path | None = None

    @cached_property
    def spec(self) -> Any:
        """The family's ``TrainSpec``."""
        return train_spec(self.name)

    @cached_property
    def to_transformers(self) -> Any:
        """torchtitan's state dict adapter between its own names and transformers'."""
        return self.spec.state_dict_adapter(self.args, None)


@dataclass(frozen=True)
class Adapter:
    """A LoRA stage's checkpoint, and how it was trained."""

    checkpoint: Path
    settings: Lora

    @cached_property
    def stored(self) -> dict[str, tuple[int, ...]]:
        """The shapes of what the checkpoint holds of the model, by key."""
        return stored_model(self.checkpoint)

    def load(self, state: dict[str, Any]) -> None:
        """Fills ``state`` with what the checkpoint holds under its keys."""
        load_quietly(state, self.checkpoint)


@dataclass(frozen=True)
class Weights:
    """A whole model, in a ``step-N`` folder or one that transformers loads, and its adapters, oldest first."""

    whole: Path
    adapters: tuple[Adapter, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """The last trained part of them."""
        return self.adapters[-1].checkpoint if self.adapters else self.whole

    @cached_property
    def stored(self) -> dict[str, tuple[int, ...]]:
        """The shapes of what ``whole`` holds of the model, by key, if it is a ``step-N`` folder."""
        return stored_model(self.whole)

    def load_whole(self, state: dict[str, Any]) -> None:
        """Fills ``state`` with what ``whole``, a ``step-N`` folder, holds under its keys."""
        load_quietly(state, self.whole)


@dataclass(frozen=True)
class TrainedModel(StageModel):
    """A stage's model with its weights and texts.

    ``base`` is the folder that the stage began from, ``held_out`` has prepared rows that it didn't train on.
    ``chat_template`` replaces the tokenizer's own; ``end_of_turn`` are the tokens that ended its trained turns.
    """

    weights: Weights = field(kw_only=True)
    base: Path | None = None
    held_out: Path | None = None
    chat_template: str | None = None
    end_of_turn: tuple[int, ...] = ()


def read_model(source: Path) -> TrainedModel:
    """The model of a training stage's folder at its newest complete checkpoint, or of one ``checkpoint/step-N`` of it.

    Raises:
        ConfigError: a custom family's module can't be imported, or a LoRA stage's base isn't there.
        DataError: the folder is no training stage's, or holds no checkpoint.
    """
    source = Path(source).absolute()
    if (source / METADATA).is_file():
        return trained_model(read_training(source.parent.parent), source)
    return trained_model(read_training(source), newest_checkpoint(source / "checkpoint"))


def trained_model(training: Training, checkpoint: Path) -> TrainedModel:
    """A stage's model at one of its checkpoints; see :func:`read_model`."""
    run, model = training.run, stage_model(training)
    return TrainedModel(
        *(model.name, model.args, model.seq_len, model.tokenizer),
        weights=weights_of(training, checkpoint),
        base=run.base,
        held_out=run.data.validation,
        chat_template=chat_template(run),
        end_of_turn=end_of_turn(run),
    )


def stage_model(training: Training) -> StageModel:
    """A stage's model by its result or, before there is one, by its run file.

    A fine-tuned model has its base's architecture, and the longer ``seq_len`` of both, since its weights have seen the
    base's positions too. A custom family is imported as in the stage.

    Raises:
        ConfigError: a custom family's module can't be imported.
        DataError: the base is no training stage's.
    """
    run, result = training.run, training.result
    import_custom(run)
    base = _base_model(training)
    if result is not None:
        args = model_args_from(result.model_name, result.model_args)
        own = StageModel(result.model_name, args, result.seq_len, result.tokenizer)
    else:
        from torchtitan.config import JobConfig

        seq_len = run.config.get("training", {}).get("seq_len") or JobConfig().training.seq_len
        own = _fine_tuned_model(base, run, seq_len) if base else _configured_model(run, seq_len)
        own = replace(own, args=_with_own_debug(own.args, run))
    if base is None:
        return own
    return replace(own, seq_len=max(own.seq_len, base.seq_len), tokenizer=own.tokenizer or base.tokenizer)


def _fine_tuned_model(base: StageModel, run: StageRun, seq_len: int) -> StageModel:
    """The base's model, with rows for the stage's new tokens, and the stage's RoPE where it changes that."""
    args = replace(base.args, vocab_size=token_rows(base.args.vocab_size, run)) if new_tokens(run) else base.args
    rope = {key: value for key, value in flatten(run.model_overrides).items() if changes_rope(key, run.config)}
    args = override_model_args({base.name: args}, base.name, base.name, rope)[base.name] if rope else args
    return replace(base, args=args, seq_len=seq_len, tokenizer=run.tokenizer or base.tokenizer)


def _with_own_debug(args: Any, run: StageRun) -> Any:
    """The arguments with this stage's ``debug.moe_force_load_balance``: torchtitan notes it in them, a base's too."""
    if getattr(args, "moe_args", None) is None:
        return args
    forced = bool((run.config.get("debug") or {}).get("moe_force_load_balance"))
    return replace(args, moe_args=replace(args.moe_args, _debug_force_load_balance=forced))


def _base_model(training: Training) -> StageModel | None:
    folder = training.run.base
    if folder is None or not is_hugging_face(folder):
        return stage_model(training.base or read_training(folder)) if folder else None
    name, _, args = described_model(folder)
    return StageModel(name, model_args_from(name, args), args["max_seq_len"], own_tokenizer(folder))


def _configured_model(run: StageRun, seq_len: int) -> StageModel:
    model = run.config.get("model", {})
    for key in ("name", "flavor"):
        if not model.get(key):
            raise ConfigError(Problem(f"model.{key} is missing", origin=str(run.folder / RUN_FILE)))
    name, flavor = model["name"], model["flavor"]
    try:
        args = override_model_args(train_spec(name).model_args, name, flavor, run.model_overrides)[flavor]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(str(error.args[0])) from error
    return StageModel(name, args, seq_len, run.tokenizer)


def chat_template(run: StageRun) -> str | None:
    """The template that rendered the stage's conversations; None for the tokenizer's own."""
    path = run.data.train / TEMPLATE_FILE if run.data.train else None
    return path.read_text(encoding="utf-8") if path and path.is_file() else None


def end_of_turn(run: StageRun) -> tuple[int, ...]:
    """The tokens that ended the stage's trained turns."""
    folder = run.data.train
    return tuple(read_info(folder).ends_of_turn) if folder and is_complete(folder) else ()


def load_quietly(state: dict[str, Any], checkpoint: Path, reader: Any = None) -> None:
    """Loads keys of a checkpoint into ``state``, each rank by itself where there is no process group."""
    import torch.distributed as dist
    from torch.distributed import checkpoint as dcp

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        place = {"storage_reader": reader} if reader else {"checkpoint_id": checkpoint}
        dcp.load(state, **place, no_dist=not dist.is_initialized())


def named_weights(path: Path) -> Weights:
    """The weights that a path stands for: a finished stage's folder, a ``step-N`` folder, or one that transformers
    loads.

    Raises:
        ConfigError: a LoRA stage's base isn't there any more, or isn't the one that it was trained on.
    """
    if is_hugging_face(path):
        return Weights(path)
    if (training := Training.of(path)) is not None and training.result is not None:
        return weights_of(training, training.result.checkpoint)
    return weights_of(Training.of(path.parent.parent), path)


def weights_of(training: Training | None, checkpoint: Path) -> Weights:
    """The weights that a stage's checkpoint stands for; one outside of a stage is a whole model.

    Raises:
        ConfigError: a LoRA stage's base isn't there any more, or isn't the one that it was trained on.
    """
    if training is None or not (settings := Lora.of(training.run.config)).rank:
        return Weights(checkpoint)
    below = weights_of(training.base, base_checkpoint(training))
    return Weights(below.whole, (*below.adapters, Adapter(checkpoint, settings)))


def base_checkpoint(training: Training) -> Path:
    """The checkpoint that a LoRA stage was started from.

    Raises:
        ConfigError: it isn't there any more, or its files have changed since the stage began.
    """
    run, checkpoint = training.run, None
    if run.base and is_hugging_face(run.base):
        checkpoint = run.base
    elif training.base and training.base.result:
        checkpoint = training.base.result.checkpoint
    if checkpoint is None:
        expected = f"the folder that it was trained on, with {RESULT_FILE} or {CONFIG_FILE}"
        raise ConfigError(Problem(f"the base of {run.folder} isn't there: {run.base}", "base", expected=expected))
    if run.base_digest and checkpoint_digest(checkpoint) != run.base_digest:
        found = f"{checkpoint} isn't what {run.folder} was trained on: its files have changed"
        hint = "an adapter fits the weights that it was trained on, and no others: train it again"
        raise ConfigError(Problem(found, "base", hint=hint))
    return checkpoint
