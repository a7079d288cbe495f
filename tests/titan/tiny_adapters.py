"""Finished stages with adapters whose effect shows, made without training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from finished_stage import finish_training
from tiny_exports import POSITIONS, sensitised
from torch.distributed import checkpoint as dcp

from titan.models.lora import add_adapters, is_adapter
from titanflow.config.keys.training import Lora
from titanflow.runs.contract import StageRun


def finished_base(folder: Path, family: str, args: Any, **fields: Any) -> Path:
    """A finished pretraining stage, its model sensitised; ``fields`` go to its ``run.yaml``."""
    return write_stage(folder, family, args, dict(sensitised(family, args).state_dict()), **fields)


def finished_lora(folder: Path, base: Path, family: str, args: Any, lora: dict[str, Any], **fields: Any) -> Path:
    """A finished LoRA stage on top of ``base``: its checkpoint holds random adapters and saved modules alone."""
    state = random_adapters(family, args, Lora(**lora))
    return write_stage(folder, family, args, state, stage="sft", base=base, config={"lora": lora}, **fields)


def random_adapters(family: str, args: Any, settings: Lora, seed: int = 3) -> dict[str, torch.Tensor]:
    """What such a stage's checkpoint holds of the model."""
    model = sensitised(family, args)
    add_adapters(model, settings)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.normal_(std=0.1)
            elif parameter.requires_grad:
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def write_stage(
    folder: Path, family: str, args: Any, state: dict[str, Any], *, stage: Any = "pretrain", **fields: Any
) -> Path:
    """A stage's checkpoint, ``run.yaml`` and ``result.json``."""
    config = {"training": {"seq_len": POSITIONS}, **fields.pop("config", {})}
    checkpoint = folder / "checkpoint" / "step-4"
    dcp.save(state, checkpoint_id=checkpoint, no_dist=True)
    run = StageRun(stage=stage, experiment="test", run="test", folder=folder, config=config, **fields)
    run.write()
    finish_training(
        folder,
        stage=stage,
        step=4,
        model_name=family,
        model_args={key: value for key, value in asdict(args).items() if not key.startswith("_")},
        seq_len=config["training"]["seq_len"],
        tokenizer=run.tokenizer,
    )
    return folder
