"""Reads a training stage's model and data from its folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from titan.export.parity import POSITIONS
from titan.models.custom_family import import_custom
from titan.models.overrides import override_model_args
from titan.models.registry import model_args_from, train_spec
from titanflow.architectures.huggingface import hugging_face, is_hugging_face
from titanflow.architectures.new_tokens import new_tokens, token_rows
from titanflow.common.errors import ConfigError, DataError, Problem
from titanflow.data.dataset_info import is_complete, read_info
from titanflow.data.prepared import TEMPLATE_FILE
from titanflow.run.contract import RESULT_FILE, RUN_FILE, StageRun
from titanflow.run.results import TrainResult, read_result


@dataclass(frozen=True)
class StageModel:
    """The model of a training stage: family, ``ModelArgs``, context length and tokenizer."""

    name: str
    args: Any
    seq_len: int
    tokenizer: Path | None


def stage_model(stage_folder: Path) -> StageModel:
    """Reads a stage's model from its result or, before there is one, from its run file.

    A fine-tuned model has its base's architecture, and the longer ``seq_len`` of both, since its weights have seen the
    base's positions too. A custom family is imported as in the stage.

    Raises:
        ConfigError: a custom family's module can't be imported.
        DataError: the folder is no training stage's.
    """
    run = StageRun.of(stage_folder)
    if run is not None:
        import_custom(run)
    base = _base_model(run.base) if run and run.base else None
    if (stage_folder / RESULT_FILE).is_file():
        result = read_result(stage_folder)
        if not isinstance(result, TrainResult):
            raise DataError(Problem("not a training stage", origin=str(stage_folder), expected="pretrain or sft"))
        args = model_args_from(result.model_name, result.model_args)
        own = StageModel(result.model_name, args, result.seq_len, result.tokenizer)
    elif run is None:
        raise DataError(Problem(f"no {RUN_FILE}", origin=str(stage_folder), expected="the folder of a training stage"))
    else:
        from torchtitan.config import JobConfig

        seq_len = run.config.get("training", {}).get("seq_len") or JobConfig().training.seq_len
        own = _fine_tuned_model(base, run, seq_len) if base else _configured_model(run, seq_len)
    if base is None:
        return own
    return replace(own, seq_len=max(own.seq_len, base.seq_len), tokenizer=own.tokenizer or base.tokenizer)


def _fine_tuned_model(base: StageModel, run: StageRun, seq_len: int) -> StageModel:
    """The base's model, with rows for the stage's new tokens."""
    args = replace(base.args, vocab_size=token_rows(base.args.vocab_size, run)) if new_tokens(run) else base.args
    return replace(base, args=args, seq_len=seq_len, tokenizer=run.tokenizer or base.tokenizer)


def _base_model(folder: Path) -> StageModel:
    if not is_hugging_face(folder):
        return stage_model(folder)
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


def held_out_tokens(run: StageRun | None) -> Any | None:
    import numpy as np

    validation = run.data.validation if run else None
    if validation is None or not (validation / "tokens.npy").is_file():
        return None
    return np.array(np.load(validation / "tokens.npy", mmap_mode="r")[:POSITIONS])


def chat_template(run: StageRun | None) -> str | None:
    """The template that rendered the stage's conversations; None for the tokenizer's own."""
    path = run.data.train / TEMPLATE_FILE if run and run.data.train else None
    return path.read_text(encoding="utf-8") if path and path.is_file() else None


def end_of_turn(run: StageRun | None) -> tuple[int, ...]:
    """The tokens that ended the stage's trained turns."""
    folder = run.data.train if run else None
    return tuple(read_info(folder).ends_of_turn) if folder and is_complete(folder) else ()
