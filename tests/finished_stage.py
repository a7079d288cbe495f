"""Stages that left what a stage leaves, in whatever folder, without having run: results, and a checkpoint's files."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from titanflow.architectures.base import tokenizer_digest
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.runs.contract import StageRun
from titanflow.runs.results import EvaluateResult, TrainResult, write_result

SEQ_LEN = 64
DATA_FILE = "__0_0.distcp"


def train_result(folder: Path, **changes: Any) -> TrainResult:
    """What a training in ``folder`` made; ``changes`` are the fields that a test is about."""
    step = changes.get("step", 1)
    values: dict[str, Any] = {
        "stage": "pretrain",
        "checkpoint": folder / "checkpoint" / f"step-{step}",
        "step": step,
        "model_name": "llama3",
        "flavor": "debugmodel",
        "model_args": {},
        "parameters": 1,
        "seq_len": 8,
    }
    return TrainResult(**(values | changes))


def evaluate_result(**changes: Any) -> EvaluateResult:
    """What an evaluation found: nothing, but for ``changes``."""
    return EvaluateResult(**({"scores": {}, "folders": {}, "digests": {}} | changes))


def finish_training(folder: Path, **changes: Any) -> TrainResult:
    """Writes ``result.json`` into a training's folder; what stands there."""
    result = train_result(folder, **changes)
    write_result(folder, result)
    return result


def write_outside_base(folder: Path, model: str = "llama3", flavor: str = "debugmodel", **args: Any) -> Path:
    """A finished pretraining in a folder of its own, as another run would have left it, with a tokenizer.

    ``args`` go over the flavor's.
    """
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    (tokenizer / "tokenizer.json").write_text("{}")
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    (folder / "checkpoint" / "step-7").mkdir(parents=True)
    (folder / "checkpoint" / "step-7" / "0.distcp").write_bytes(b"weights")
    StageRun(
        stage="pretrain",
        experiment="before",
        run="main",
        folder=folder,
        config={"model": {"name": model, "flavor": flavor, "converters": []}, "training": {"seq_len": SEQ_LEN}},
        model_overrides=args,
    ).write()
    finish_training(
        folder,
        step=7,
        model_name=model,
        flavor=flavor,
        model_args={**load_snapshot()["models"][model]["flavors"][flavor], "max_seq_len": SEQ_LEN, **args},
        seq_len=SEQ_LEN,
        tokenizer=tokenizer,
        tokenizer_digest=tokenizer_digest(tokenizer),
    )
    return folder


def write_checkpoint(path: Path, keys: tuple[str, ...] = ("norm.weight", "optimizer.state.norm.weight")) -> Path:
    """Writes a complete ``step-N`` folder that holds some bytes under each key; returns it."""
    path.mkdir(parents=True, exist_ok=True)
    data, places = b"", {}
    for number, key in enumerate(keys):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data/0", bytes([number + 1]) * 400)
        piece = archive.getvalue()
        places[key] = SimpleNamespace(relative_path=DATA_FILE, offset=len(data), length=len(piece))
        data += piece
    (path / DATA_FILE).write_bytes(data)
    metadata = SimpleNamespace(state_dict_metadata=dict.fromkeys(keys), storage_data=places)
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    return path
