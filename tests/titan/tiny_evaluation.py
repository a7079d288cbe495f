"""Stages to evaluate, tiny ones, and what an evaluation of them leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tiny_evals import TASKS, write_evals
from tiny_exports import POSITIONS, SIZES, VOCAB, save_checkpoint, sensitised, tiny_args, write_byte_tokenizer

from titan.export.export import export_checkpoint
from titanflow.data.dataset_info import DatasetInfo
from titanflow.data.prepared import write_rows
from titanflow.data.tokenizer.tokenizer import load_tokenizer
from titanflow.runs.contract import RUN_FILE, PreparedData, StageRun


class Trained(NamedTuple):
    """A run's ``pretrain/`` and ``sft/`` in ``folder``, and the prepared items."""

    folder: Path
    data: Path


def write_trained(folder: Path) -> Trained:
    """Two trained stages and prepared items; only the fine-tuned stage has its export already."""
    tokenizer = write_byte_tokenizer(folder / "tokenizer")
    for seed, stage in enumerate(("pretrain", "sft")):
        StageRun(
            stage=stage,
            experiment="tiny",
            run="monday",
            folder=folder / stage,
            config={"model": {"name": "llama3", "flavor": "debugmodel"}, "training": {"seq_len": POSITIONS}},
            model_overrides={**SIZES["llama3"], "vocab_size": VOCAB},
            tokenizer=tokenizer,
        ).write()
        save_checkpoint(sensitised("llama3", tiny_args("llama3"), seed), folder / stage / "checkpoint" / "step-1")
    export_checkpoint(folder / "sft", folder / "sft" / "export")
    data = folder / "evals"
    data.mkdir()
    return Trained(folder, write_evals(data))


FOLDERS = {"pretrain": "pretrain", "sft": "sft", "base": "pretrain"}
"""The run's stages as an evaluation knows them."""


def evaluation(trained: Trained, folder: Path, **settings: Any) -> StageRun:
    """A written stage that evaluates both."""
    config = {"tasks": list(TASKS), "include_path": str(trained.data / "tasks"), "wandb": False, "bootstrap_iters": 20}
    run = StageRun(
        stage="evaluate",
        experiment="tiny",
        run="monday",
        folder=folder,
        config=config | settings,
        data=PreparedData(train=trained.data),
        stages={name: trained.folder / folder for name, folder in FOLDERS.items()},
    )
    run.write()
    return run


def give_rows(stage: Path, name: str, texts: list[str]) -> None:
    """Prepared rows for a stage, as if it had been trained on them."""
    run = StageRun.read(stage / RUN_FILE)
    assert run.tokenizer is not None
    ids = [np.array(load_tokenizer(run.tokenizer).encode(text), np.uint16) for text in texts]
    folder = stage.parent / name
    folder.mkdir()
    facts: dict[str, Any] = {"kind": "text", "name": name, "fingerprint": "", "dtype": "uint16", "vocab_size": 300}
    counts = {"documents": len(ids), "tokens": sum(map(len, ids)), "trained_tokens": 0, "bytes": 0, "pad_id": 0}
    write_rows(folder, DatasetInfo(**facts, **counts), ids, np.array(list(map(len, ids)), np.int64))
    run.data = PreparedData(train=folder)
    run.write()


def samples(run: StageRun, model: str, task: str) -> list[dict[str, Any]]:
    """What was asked and answered, as the stage keeps it."""
    lines = (run.folder / f"samples_{model}_{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
