"""Finished stages with weights, of which means are made."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_exports import POSITIONS, SIZES, VOCAB, save_checkpoint, sensitised, tiny_args

from titanflow.architectures.base import tokenizer_digest
from titanflow.runs.contract import StageRun
from titanflow.runs.results import TrainResult, write_result


def write_stage(
    folder: Path,
    seeds: list[int],
    tokenizer: Path,
    family: str = "llama3",
    dtype: torch.dtype = torch.float32,
    interval: int = 1,
    **sizes: int,
) -> Path:
    """A finished stage with a checkpoint for each seed, of which each ``interval``-th was due.

    The model has other ``sizes`` than the family's tiny one.
    """
    StageRun(
        stage=folder.name,
        kind="pretrain",
        experiment="e",
        run="r",
        folder=folder,
        config={
            "model": {"name": family, "flavor": "debugmodel"},
            "training": {"seq_len": POSITIONS, "steps": len(seeds)},
            "checkpoint": {"interval": interval, "enable_first_step_checkpoint": False},
            "lr_scheduler": {
                "warmup_steps": 0,
                "total_steps": None,
                "decay_ratio": 0.0,
                "decay_type": "linear",
                "min_lr_factor": 0.0,
            },
        },
        model_overrides={**SIZES[family], "vocab_size": VOCAB, **sizes},
        tokenizer=tokenizer,
    ).write()
    for step, seed in enumerate(seeds, 1):
        model = sensitised(family, tiny_args(family, **sizes), seed).to(dtype)
        save_checkpoint(model, folder / "checkpoint" / f"step-{step}")
    args = {**SIZES[family], "vocab_size": VOCAB, "max_seq_len": POSITIONS, **sizes}
    write_result(
        folder,
        TrainResult(
            stage=folder.name,
            kind="pretrain",
            checkpoint=folder / "checkpoint" / f"step-{len(seeds)}",
            step=len(seeds),
            model_name=family,
            flavor="debugmodel",
            model_args=args,
            parameters=1,
            seq_len=POSITIONS,
            tokenizer=tokenizer,
            tokenizer_digest=tokenizer_digest(tokenizer),
        ),
    )
    return folder
