"""A training stage's model, read once from its folder and handed on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from titan.models.custom_family import import_custom
from titan.models.overrides import override_model_args
from titan.models.registry import model_args_from, train_spec
from titan.weights.stage_weights import Weights, weights_of
from titan.weights.stored_weights import newest_checkpoint
from titanflow.architectures.huggingface import hugging_face, is_hugging_face
from titanflow.architectures.new_tokens import new_tokens, token_rows
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.files.chat_template import TEMPLATE_FILE
from titanflow.data.dataset_info import is_complete, read_info
from titanflow.run.checkpoints import METADATA
from titanflow.run.contract import RUN_FILE, StageRun
from titanflow.run.training import Training, read_training


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
    """The base's model, with rows for the stage's new tokens."""
    args = replace(base.args, vocab_size=token_rows(base.args.vocab_size, run)) if new_tokens(run) else base.args
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
    base = hugging_face(folder)
    return StageModel(base.model_name, model_args_from(base.model_name, base.model_args), base.seq_len, base.tokenizer)


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
