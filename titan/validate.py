"""Validation over prepared rows: the mean loss of all tokens, whatever batch or rank they are in."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.components.validate import BaseValidator, Validator
from torchtitan.config import JobConfig
from torchtitan.distributed import utils as dist_utils
from torchtitan.tools import utils
from torchtitan.tools.logging import logger

from titan.dataloader import Rows, ValidationLoader
from titan.documents import Inputs, document_inputs


class Unmasked(nn.Module):
    """Stands for a model whose attention takes no mask.

    torchtitan's validator asks every model for one; with ``sdpa`` llama3 and qwen3 refuse by a ``TypeError``, while
    deepseek_v3 and llama4 make a mask, which their own forward pass refuses.
    """

    def get_attention_masks(self, **inputs: Any) -> None:
        """Refuses, as llama3 does."""
        raise TypeError


class StageValidator(Validator):
    """torchtitan's validator over the rows that a stage prepared.

    torchtitan averages the means of its batches, which weighs a batch with ten trained tokens like one with a
    thousand. Under pipeline parallelism its own loop runs.
    """

    def __init__(
        self, rows: Rows, job_config: JobConfig, dp_world_size: int, dp_rank: int, trim: bool = False, **parts: Any
    ) -> None:
        # Validator's own constructor would open the dataset that validation.dataset names.
        BaseValidator.__init__(self, job_config)
        for name, part in parts.items():
            setattr(self, name, part)
        self.validation_dataloader = ValidationLoader(
            rows,
            local_batch_size=job_config.validation.local_batch_size,
            rank=dp_rank,
            ranks=dp_world_size,
            steps=job_config.validation.steps,
            settings=job_config.validation.dataloader,
            trim=trim,
        )

    def should_validate(self, step: int) -> bool:
        """The first step, each ``validation.freq`` steps, and the last."""
        return bool(super().should_validate(step) or step == self.job_config.training.steps)

    def post_dataloading_process(
        self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor, model_parts: list[nn.Module]
    ) -> Inputs:
        """torchtitan's, but for a model that makes its masks from the rows' positions, or that takes none."""
        inputs = document_inputs(model_parts[0], input_dict, labels)
        takes_masks = getattr(getattr(model_parts[0], "model_args", None), "attn_type", "sdpa") != "sdpa"
        asked = model_parts if takes_masks else [Unmasked()]
        return inputs or super().post_dataloading_process(input_dict, labels, asked)

    @torch.no_grad()
    def validate(self, model_parts: list[nn.Module], step: int) -> None:
        """Logs the mean loss over all validation tokens; the clock of the training speed stands still meanwhile."""
        started = time.perf_counter()
        tokens = self.metrics_processor.ntokens_since_last_log
        if self.parallel_dims.pp_enabled:
            super().validate(model_parts, step)
        else:
            loss = self.mean_loss(model_parts[0])
            if loss is None:
                logger.warning(f"validate step: {step:2}  no loss: not one token of the validation rows has a label")
            else:
                self.metrics_processor.log_validation(loss=loss, step=step)
        self.metrics_processor.ntokens_since_last_log = tokens
        self.metrics_processor.time_last_log += time.perf_counter() - started

    @torch.no_grad()
    def mean_loss(self, model: nn.Module) -> float | None:
        """The sum of the losses of all tokens of all ranks, by the number of those tokens; None for no tokens."""
        total = torch.zeros((), dtype=torch.float64, device=utils.device_type)
        count = torch.zeros((), dtype=torch.float64, device=utils.device_type)
        model.eval()
        for input_dict, labels in self.validation_dataloader:
            loss, tokens = self._batch_loss(model, input_dict, labels)
            total += loss
            count += tokens
        model.train()
        mesh = self.parallel_dims.get_optional_mesh("loss") if self.parallel_dims.dp_cp_enabled else None
        loss, tokens = dist_utils.dist_sum(total, mesh), dist_utils.dist_sum(count, mesh)
        return loss / tokens if tokens else None

    def _batch_loss(
        self, model: nn.Module, input_dict: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        moved = {name: value.to(utils.device_type) for name, value in input_dict.items()}
        inputs, labels, extra_inputs, extra_kwargs = self.post_dataloading_process(
            moved, labels.to(utils.device_type), [model]
        )
        with self.validation_context(), self.maybe_enable_amp:
            loss = self.loss_fn(model(inputs, **extra_inputs, **extra_kwargs), labels)
        loss = loss.full_tensor() if isinstance(loss, DTensor) else loss
        return loss.double(), (labels != IGNORE_INDEX).sum()
