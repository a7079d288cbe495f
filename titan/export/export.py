"""A checkpoint becomes a folder that transformers loads as it stands, or nothing at all.

``python -m titan.export.export CHECKPOINT_OR_STAGE_FOLDER OUT`` prints the report as JSON. The folder is written beside
its place, compared with the native model (:mod:`titan.export.parity`) and only then put there; an older export stays
until its successor has passed. The weights lie in mapped files meanwhile (:mod:`titan.weights.disk_tensors`), so that a
model may be larger than memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from titan.export.files import (
    SpecialTokens,
    add_rope_for_transformers_4,
    check_tokenizer,
    export_tokenizer,
    make_config,
    make_generation_config,
)
from titan.export.parity import Parity, ParityError, held_out_tokens, measure
from titan.models.huggingface import HuggingFaceModel, hugging_face_model, refusal
from titan.process.quiet import quiet_transformers
from titan.weights.native import load_native
from titan.weights.stage_model import TrainedModel, read_model
from titanflow.common.digests import folder_digests
from titanflow.common.errors import ConfigError, DataError, Problem, TitanflowError, refused_places
from titanflow.data.tokenizer.tokenizer import load_tokenizer

SHARD_SIZE = 5_000_000_000
"""Bytes of the largest file of weights. An export needs the memory of at most two such files (or largest tensors),
whatever the model's size."""


@dataclass(frozen=True)
class ExportReport:
    """``digests`` has the SHA-256 of each file, ``parity`` the figures of the comparison that it passed."""

    folder: Path
    checkpoint: Path
    model_name: str
    parameters: int
    parity: dict[str, float]
    digests: dict[str, str]
    seconds: float


def export_checkpoint(source: Path, out: Path, tokenizer: Path | None = None) -> ExportReport:
    """Exports a training stage's checkpoint to the folder ``out``.

    ``source`` is a stage's folder (for its newest complete checkpoint) or one ``checkpoint/step-N`` of it;
    ``tokenizer`` a tokenizer's folder, by default the stage's.

    Raises:
        ConfigError: the model's family has no export, or the checkpoint isn't the model's.
        DataError: no checkpoint, no tokenizer, or ``out`` holds something else.
        StageFailed: the export doesn't compute the same.
    """
    model = read_model(source)
    return export_model(replace(model, tokenizer=tokenizer or model.tokenizer), out)


def export_model(model: TrainedModel, out: Path) -> ExportReport:
    """Exports a stage's model; see :func:`export_checkpoint`."""
    from titan.models.lora import is_adapter, merged_state
    from titan.weights.disk_tensors import DiskTensors
    from titan.weights.hf_folder import to_hugging_face

    started = time.monotonic()
    quiet_transformers()
    checkpoint, tokenizer, out = model.weights.checkpoint, model.tokenizer, Path(out).absolute()
    if reason := refusal(model.name, asdict(model.args)):
        raise ConfigError(reason)
    if tokenizer is None:
        raise DataError(Problem("the stage names no tokenizer", origin=str(checkpoint), hint="pass one"))
    is_export = (out / "config.json").is_file() and any(out.glob("model*.safetensors"))
    if out.exists() and not is_export and (not out.is_dir() or any(out.iterdir())):
        raise foreign(out, "export")
    tokens = SpecialTokens.read(tokenizer, model.end_of_turn)
    trained = load_tokenizer(tokenizer)
    config = make_config(model.name, model.args, tokens, model.seq_len)
    partial, mapped = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.mapped")
    for folder in (partial, mapped):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    disk = DiskTensors(mapped)
    try:
        native = load_native(model, disk)
        weights = merged_state(native, disk.stored)
        family = hugging_face_model(model.name, model.args)
        renamed = to_hugging_face(weights, model.to_transformers)
        # The copies have no name here, so that they are freed as soon as they are written.
        _write_model(partial, family, config, {key: disk.stored(value) for key, value in renamed}, tokens)
        export_tokenizer(tokenizer, partial, model.chat_template)
        check_tokenizer(partial, trained)
        make_readable(partial)
        parity = compare(native, model.to_transformers, partial, held_out_tokens(model.held_out), weights, disk)
        if failures := parity.failures():
            raise ParityError(f"{out}: the exported model isn't the trained one: {'; '.join(failures)}")
        put_in_place(partial, out)
    finally:
        for folder in (partial, mapped):
            shutil.rmtree(folder, ignore_errors=True)
    return ExportReport(
        folder=out,
        checkpoint=checkpoint,
        model_name=model.name,
        parameters=sum(value.numel() for name, value in native.named_parameters() if not is_adapter(name)),
        parity=parity.figures(),
        digests=folder_digests(out),
        seconds=time.monotonic() - started,
    )


def foreign(out: Path, kind: str) -> DataError:
    """Only an older export or adapter may be replaced; anything else may be somebody's work."""
    expected, hint = f"a new or empty folder, or an older {kind}", "choose another folder, or remove this one"
    return DataError(Problem(f"there is something that is no {kind}", origin=str(out), expected=expected, hint=hint))


def _write_model(
    folder: Path, family: HuggingFaceModel, config: Any, weights: Mapping[str, Any], tokens: SpecialTokens
) -> None:
    """Writes config, generation defaults and weights through transformers.

    The weights have the Hub's names, where each expert has its own; transformers joins them on loading. The later
    comparison reports those that are missing or have no place.
    """
    import torch

    model_class = family.model_class()
    if family.has_code:
        type(config).register_for_auto_class()
        model_class.register_for_auto_class("AutoModelForCausalLM")
    with torch.device("meta"):
        model = model_class(config)
    model.generation_config = make_generation_config(tokens)
    model.save_pretrained(folder, state_dict=dict(weights), max_shard_size=SHARD_SIZE, save_original_format=False)
    add_rope_for_transformers_4(folder)


def compare(
    native: Any, adapter: Any, folder: Path, held_out: Any = None, weights: Any = None, disk: Any = None
) -> Parity:
    """Loads an exported folder as any user does, and compares it with the native model (:mod:`titan.export.parity`).

    ``adapter`` is the family's state dict adapter. ``weights`` are the exported ones by native name; ``native`` may
    compute with LoRA's adapters unmerged. ``disk`` takes the experts that are joined on loading, else memory does.
    """
    import torch

    from titan.weights.disk_tensors import OnDisk
    from titan.weights.hf_folder import changed_weights, load_folder

    with nullcontext() if disk is None else OnDisk(disk):
        changed = changed_weights(folder, native.state_dict() if weights is None else weights, adapter)
        exported, loading = load_folder(folder, torch.float32)
    misfits = {"missing": loading["missing"], "unexpected": loading["unexpected"], "changed_tensors": changed}
    return measure(native, exported, misfits, held_out)


def make_readable(folder: Path) -> None:
    """Lets everyone read the folder: safetensors writes files that only their owner can."""
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)


def put_in_place(partial: Path, out: Path) -> None:
    """Renames a finished folder to its place, and only then removes the older one."""
    older = out.with_name(f".{out.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    if out.exists():
        out.rename(older)
    partial.rename(out)
    shutil.rmtree(older, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m titan.export.export", description=__doc__)
    parser.add_argument("source", type=Path, help="a training stage's folder, or one checkpoint/step-N of it")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer's folder (the stage's own unless given)")
    given = parser.parse_args(arguments)
    try:
        with refused_places():
            report = export_checkpoint(given.source, given.out, given.tokenizer)
    except TitanflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(report), indent=2, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
