"""A checkpoint becomes a folder that transformers loads as it stands, or nothing at all.

``python -m titan.export CHECKPOINT_OR_STAGE_FOLDER OUT`` prints the report as JSON. The folder is written beside
its place, compared with the native model (:mod:`titan.parity`) and only then put there; an older export stays
until its successor has passed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from titan.hf_config import (
    SpecialTokens,
    add_rope_for_transformers_4,
    check_tokenizer,
    copy_tokenizer,
    make_config,
    make_generation_config,
)
from titan.hf_models import HuggingFaceModel, hugging_face_model, refusal
from titan.inheritance import new_tokens, token_rows
from titan.job_config import import_custom
from titan.model_overrides import override_model_args
from titan.native_model import load_native, model_args_from, newest_checkpoint, train_spec
from titan.parity import POSITIONS, measure
from titan.quiet import quiet_transformers
from titanflow.data.prepared import TEMPLATE_FILE, is_complete, read_info
from titanflow.errors import ConfigError, DataError, Problem, TitanflowError
from titanflow.fingerprint import folder_digests
from titanflow.hf_base import hugging_face, is_hugging_face
from titanflow.stage import RESULT_FILE, RUN_FILE, StageRun, TrainResult, read_result

EXPORT_FOLDER = "export"
"""Where a training stage's export lies in its folder."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported: ``digests`` is the SHA-256 of each file, ``parity`` the figures it passed with."""

    folder: Path
    checkpoint: Path
    model_name: str
    parameters: int
    parity: dict[str, float]
    digests: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class StageModel:
    """What a training stage trained: the family, its arguments, the length and the tokenizer."""

    name: str
    args: Any
    seq_len: int
    tokenizer: Path | None


def stage_model(stage_folder: Path) -> StageModel:
    """Reads what a stage trained: from its result, or before it has one from its run file.

    A fine-tuning stage's architecture is its base's; its ``seq_len`` the longest of both, since the weights have
    seen the base's positions too. A family of one's own is imported as the stage imported it.

    Raises:
        ConfigError: the module of a family of one's own can't be imported.
        DataError: the folder is no training stage's.
    """
    run = read_run(stage_folder)
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
        seq_len = run.config.get("training", {}).get("seq_len") or _default_seq_len()
        own = _fine_tuned_model(base, run, seq_len) if base else _configured_model(run, seq_len)
    if base is None:
        return own
    return replace(own, seq_len=max(own.seq_len, base.seq_len), tokenizer=own.tokenizer or base.tokenizer)


def _fine_tuned_model(base: StageModel, run: StageRun, seq_len: int) -> StageModel:
    """The base's model, with the rows that the stage's new tokens made it grow by."""
    args = replace(base.args, vocab_size=token_rows(base.args.vocab_size, run)) if new_tokens(run) else base.args
    return replace(base, args=args, seq_len=seq_len, tokenizer=run.tokenizer or base.tokenizer)


def _base_model(folder: Path) -> StageModel:
    if not is_hugging_face(folder):
        return stage_model(folder)
    base = hugging_face(folder)
    return StageModel(base.model_name, model_args_from(base.model_name, base.model_args), base.seq_len, base.tokenizer)


def read_run(stage_folder: Path) -> StageRun | None:
    """The stage's run file, or None where the folder has none."""
    path = stage_folder / RUN_FILE
    return StageRun.read(path) if path.is_file() else None


def _configured_model(run: StageRun, seq_len: int) -> StageModel:
    model = run.config.get("model", {})
    for key in ("name", "flavor"):
        if not model.get(key):
            raise ConfigError(Problem(f"model.{key} is missing", origin=str(run.folder / RUN_FILE)))
    args = _flavor_args(model["name"], model["flavor"], run.model_overrides)
    return StageModel(model["name"], args, seq_len, run.tokenizer)


def _default_seq_len() -> int:
    from torchtitan.config import JobConfig

    return int(JobConfig().training.seq_len)


def _flavor_args(name: str, flavor: str, overrides: Mapping[str, Any]) -> Any:
    try:
        return override_model_args(train_spec(name).model_args, name, flavor, overrides)[flavor]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(str(error.args[0])) from error


def export_checkpoint(source: Path, out: Path, tokenizer: Path | None = None) -> ExportReport:
    """Exports a training stage's checkpoint.

    Args:
        source: a stage's folder (its newest complete checkpoint is taken) or one ``checkpoint/step-N`` of it.
        out: the folder to make.
        tokenizer: a tokenizer's folder; the stage's own unless given.

    Raises:
        ConfigError: the model's family has no export.
        DataError: no checkpoint, no tokenizer, or ``out`` holds something else.
        StageFailed: the checkpoint isn't the model's, or the export doesn't compute the same.
    """
    source = Path(source).absolute()
    is_checkpoint = (source / ".metadata").is_file()
    stage_folder = source.parent.parent if is_checkpoint else source
    model = stage_model(stage_folder)
    run = read_run(stage_folder)
    tokenizer = tokenizer or model.tokenizer
    if tokenizer is None:
        raise DataError(Problem("the stage names no tokenizer", origin=str(stage_folder), hint="pass one"))
    return export_dcp(
        source if is_checkpoint else newest_checkpoint(stage_folder / "checkpoint"),
        model.name,
        model.args,
        tokenizer,
        out,
        model.seq_len,
        chat_template=_chat_template(run),
        end_of_turn=_end_of_turn(run),
        held_out=held_out_tokens(run),
    )


def export_dcp(
    checkpoint: Path,
    model_name: str,
    model_args: Any,
    tokenizer: Path,
    out: Path,
    max_position_embeddings: int,
    *,
    chat_template: str | None = None,
    end_of_turn: tuple[int, ...] = (),
    held_out: Any | None = None,
) -> ExportReport:
    """Exports a distributed checkpoint; see :func:`export_checkpoint`.

    Args:
        checkpoint: a ``step-N`` folder.
        model_name: torchtitan's name of the family.
        model_args: the ``ModelArgs`` that the model was trained with.
        tokenizer: the tokenizer's folder.
        out: the folder to make.
        max_position_embeddings: the ``seq_len`` trained with.
        chat_template: the template's text, where it isn't the tokenizer's own.
        end_of_turn: tokens that end a generation beside the tokenizer's own.
        held_out: 1-D token ids of held-out text to compare on, beside random ones.
    """
    from titan.lora import is_adapter, merged_state

    started = time.monotonic()
    quiet_transformers()
    checkpoint, out = Path(checkpoint), Path(out).absolute()
    if reason := refusal(model_name, asdict(model_args)):
        raise ConfigError(reason)
    _refuse_foreign(out)
    tokens = SpecialTokens.read(Path(tokenizer), end_of_turn)
    config = make_config(model_name, model_args, tokens, max_position_embeddings)
    native = load_native(checkpoint, model_name, model_args, max_position_embeddings)
    weights = merged_state(native)
    adapter = train_spec(model_name).state_dict_adapter(model_args, None)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_model(partial, hugging_face_model(model_name, model_args), config, adapter.to_hf(weights), tokens)
        copy_tokenizer(Path(tokenizer), partial, chat_template)
        check_tokenizer(partial)
        make_readable(partial)
        parity = measure(native, adapter, partial, held_out, weights)
        parity.check(out)
        put_in_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ExportReport(
        folder=out,
        checkpoint=checkpoint,
        model_name=model_name,
        parameters=sum(value.numel() for name, value in native.named_parameters() if not is_adapter(name)),
        parity=parity.figures(),
        digests=folder_digests(out),
        seconds=time.monotonic() - started,
    )


def held_out_tokens(run: StageRun | None) -> Any | None:
    """The first tokens of a stage's validation data, or None where it has none."""
    import numpy as np

    validation = run.data.validation if run else None
    if validation is None or not (validation / "tokens.npy").is_file():
        return None
    return np.array(np.load(validation / "tokens.npy", mmap_mode="r")[:POSITIONS])


def _chat_template(run: StageRun | None) -> str | None:
    """The text of the template that the stage's conversations were rendered with; None for the tokenizer's own."""
    path = run.data.train / TEMPLATE_FILE if run and run.data.train else None
    return path.read_text(encoding="utf-8") if path and path.is_file() else None


def _end_of_turn(run: StageRun | None) -> tuple[int, ...]:
    """The token that ended each turn that the stage trained."""
    folder = run.data.train if run else None
    found = read_info(folder).end_of_turn_id if folder and is_complete(folder) else None
    return () if found is None else (found,)


def _refuse_foreign(out: Path) -> None:
    """An export may be replaced; anything else at its place is somebody's work."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not ((out / "config.json").is_file() and any(out.glob("model*.safetensors"))):
        raise DataError(
            Problem(
                "there is something that is no export",
                origin=str(out),
                expected="a new or empty folder, or an older export",
                hint="choose another folder, or remove this one",
            )
        )


def _write_model(
    folder: Path, family: HuggingFaceModel, config: Any, weights: Mapping[str, Any], tokens: SpecialTokens
) -> None:
    """Writes config, generation defaults and weights through transformers.

    The weights go by the names that they have on the Hub, where each expert has its own; transformers makes its own
    of them as it loads the folder, and the comparison that follows says which are missing or have no place.
    """
    import torch

    model_class = family.model_class()
    if family.has_code:
        type(config).register_for_auto_class()
        model_class.register_for_auto_class("AutoModelForCausalLM")
    with torch.device("meta"):
        model = model_class(config)
    model.generation_config = make_generation_config(tokens)
    model.save_pretrained(folder, state_dict=dict(weights), save_original_format=False)
    add_rope_for_transformers_4(folder)


def make_readable(folder: Path) -> None:
    """safetensors writes files that only their owner may read, and a model is there to be read."""
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)


def put_in_place(partial: Path, out: Path) -> None:
    """Renames a finished folder to its place; the folder that was there goes last."""
    older = out.with_name(f".{out.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    if out.exists():
        out.rename(older)
    partial.rename(out)
    shutil.rmtree(older, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 for a failed export, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m titan.export", description=__doc__)
    parser.add_argument("source", type=Path, help="a training stage's folder, or one checkpoint/step-N of it")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer's folder (the stage's own unless given)")
    given = parser.parse_args(arguments)
    try:
        report = export_checkpoint(given.source, given.out, given.tokenizer)
    except TitanflowError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(report), indent=2, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
