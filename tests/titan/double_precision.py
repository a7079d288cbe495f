"""Trains a stage in double precision and keeps each step's gradients: ``torchrun … double_precision.py <run.yaml>``."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.protocols.train_spec import get_train_spec, register_train_spec

from titan.process.interrupt import Interruption
from titan.tracking.loggers import ForgivingLoggers
from titan.train.trainer import Trainer
from titanflow.runs.contract import StageRun

FAMILY = "qwen3_double"
"""qwen3, whose RoPE keeps the dtype, with a loss that does: torchtitan's turns predictions to float32."""


def double_loss(predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    assert predictions.dtype == torch.float64
    return cross_entropy(predictions.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=-100)


def build_double_loss(job_config: Any, **parts: Any) -> Any:
    return double_loss


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


class Recorder(ForgivingLoggers):
    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[int, dict[str, Any]] = {}

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self.logged[step] = metrics


class RecordingTrainer(Trainer):
    """Keeps what each step left behind; gradients stand until the next step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        (model,) = self.model_parts
        self.weights = {name: whole(parameter) for name, parameter in model.named_parameters()}
        self.gradients: dict[int, dict[str, torch.Tensor]] = {}
        self.metrics_processor.logger = Recorder()

    def train_step(self, data_iterator: Iterator[Any]) -> None:
        super().train_step(data_iterator)
        (model,) = self.model_parts
        assert all(parameter.grad is not None for parameter in model.parameters())
        self.gradients[self.step] = {name: whole(parameter.grad) for name, parameter in model.named_parameters()}


def main(path: Path) -> None:
    TORCH_DTYPE_MAP["float64"] = torch.float64
    register_train_spec(FAMILY, dataclasses.replace(get_train_spec("qwen3"), build_loss_fn=build_double_loss))
    from titan.train.train import prepare

    run = StageRun.read(path)
    job_config, _ = prepare(run, None)
    trainer = RecordingTrainer(job_config, Interruption())
    assert trainer.train()
    moments = [state for one in trainer.optimizers.optimizers for state in one.state.values()]
    left = {
        "weights": trainer.weights,
        "gradients": trainer.gradients,
        "logged": trainer.metrics_processor.logger.logged,
        "optimizer_steps": {int(state["step"]) for state in moments},
        "schedule": trainer.lr_schedulers.schedulers[0].last_epoch,
        "step": trainer.step,
        "rows_seen": trainer.dataloader.rows_seen,
    }
    trainer.close()
    if torch.distributed.get_rank() == 0:
        torch.save(left, run.folder / "left.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
