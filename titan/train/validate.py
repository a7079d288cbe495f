"""Validation over prepared rows: the mean loss of all tokens, whichever batch or rank has them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.components.validate import BaseValidator, Validator
from torchtitan.config import JobConfig
from torchtitan.distributed import utils as dist_utils
from torchtitan.hf_datasets.text_datasets import build_text_validation_dataloader
from torchtitan.tools import utils
from torchtitan.tools.logging import logger

from titan.models.documents import Inputs, document_inputs
from titan.train.chunked_loss import with_labels
from titan.train.dataloader import Batch, Rows, ValidationLoader
from titan.train.streaming import WithinDocuments

if TYPE_CHECKING:
    from titan.inference.samples import Samples


class Unmasked(nn.Module):
    """Stands for a model whose attention takes no mask.

    torchtitan's validator asks every model for one; with ``sdpa`` llama3 and qwen3 refuse by a ``TypeError``, while
    deepseek_v3 and llama4 make a mask, which their own forward pass refuses.
    """

    def get_attention_masks(self, **inputs: Any) -> None:
        raise TypeError


class StageValidator(Validator):
    """torchtitan's validator over the rows that a stage prepared.

    torchtitan averages the means of its batches: a batch with ten trained tokens weighs as much as one with a
    thousand, and a pipeline's batch without any is NaN.
    """

    validation_dataloader: Iterable[Batch]
    samples: Samples | None = None

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
        return bool(super().should_validate(step) or step == self.job_config.training.steps)

    def post_dataloading_process(
        self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor, model_parts: list[nn.Module]
    ) -> Inputs:
        """torchtitan's, except for a model that makes its masks from the rows' positions, or takes none."""
        inputs = document_inputs(model_parts[0], input_dict, labels)
        takes_masks = getattr(getattr(model_parts[0], "model_args", None), "attn_type", "sdpa") != "sdpa"
        asked = model_parts if takes_masks else [Unmasked()]
        return inputs or super().post_dataloading_process(input_dict, labels, asked)

    def validate(self, model_parts: list[nn.Module], step: int) -> None:
        """Logs the mean loss over all validation tokens, and leaves the time out of the training speed."""
        started = time.perf_counter()
        tokens = self.metrics_processor.ntokens_since_last_log
        loss = self.mean_loss(*model_parts)
        if loss is None:
            logger.warning(f"validate step: {step:2}  no loss: not one token of the validation rows has a label")
        else:
            self.metrics_processor.log_validation(loss=loss, step=step)
        if self.samples is not None:
            with evaluating(model_parts):
                self.samples.answer(self, model_parts, step)
        self.metrics_processor.ntokens_since_last_log = tokens
        self.metrics_processor.time_last_log += time.perf_counter() - started

    @torch.no_grad()
    def mean_loss(self, *model_parts: nn.Module) -> float | None:
        """The summed loss of all tokens of all ranks, divided by their number; None where there are none."""
        sums = torch.zeros(2, dtype=torch.float64, device=utils.device_type)
        with evaluating(model_parts):
            for input_dict, labels in self.validation_dataloader:
                sums += self._batch_sums(list(model_parts), input_dict, labels)
        loss, tokens = self.of_all_ranks(sums).tolist()
        return loss / tokens if tokens else None

    def of_all_ranks(self, sums: torch.Tensor) -> torch.Tensor:
        """The sums of the ranks' values, 1-D."""
        dims = self.parallel_dims
        meshes = [dims.get_optional_mesh("loss")] if dims.dp_cp_enabled else []
        # Only the ranks with a pipeline's last stage know the loss.
        meshes += [dims.get_mesh("pp")] if dims.pp_enabled else []
        for mesh in meshes:
            sums = torch.tensor([dist_utils.dist_sum(one, mesh) for one in sums], dtype=sums.dtype, device=sums.device)
        return sums

    def _batch_sums(
        self, model_parts: list[nn.Module], input_dict: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        """The summed loss of a batch and how many tokens have one, float64 of shape (2,)."""
        moved = {name: value.to(utils.device_type) for name, value in input_dict.items()}
        batch = self.post_dataloading_process(moved, labels.to(utils.device_type), model_parts)
        batch = with_labels(batch, model_parts[0])
        if self.parallel_dims.pp_enabled:
            losses = self._pipeline_losses(*batch)
            if not losses:
                return torch.zeros(2, dtype=torch.float64, device=utils.device_type)
            loss = torch.stack(losses).sum().to(utils.device_type)
        else:
            inputs, labels, extra_inputs, extra_kwargs = batch
            with self.validation_context(), self.maybe_enable_amp:
                loss = self.loss_fn(model_parts[0](inputs, **extra_inputs, **extra_kwargs), labels)
        loss = loss.full_tensor() if isinstance(loss, DTensor) else loss
        return torch.stack([loss.double(), (batch[1] != IGNORE_INDEX).sum().double()])

    def _pipeline_losses(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        extra_inputs: dict[str, torch.Tensor],
        extra_kwargs: dict[str, Any],
    ) -> list[torch.Tensor]:
        """The summed loss of each microbatch; empty where this rank doesn't have the last stage."""
        assert self.pp_schedule is not None
        losses: list[torch.Tensor] = []
        last = {"target": labels, "losses": losses} if self.pp_has_last_stage else {}
        with self.validation_context():
            if self.pp_has_first_stage:
                self.pp_schedule.eval(inputs, **extra_inputs, **extra_kwargs, **last)
            else:
                self.pp_schedule.eval(**extra_kwargs, **last)
        return losses


@contextmanager
def evaluating(model_parts: Iterable[nn.Module]) -> Iterator[None]:
    """Forward passes within this context drop nothing, and leave a model behind that can be saved."""
    for part in model_parts:
        part.eval()
    yield
    for part in model_parts:
        part.train()
        reshard(part)


def reshard(part: nn.Module) -> None:
    """Frees what FSDP gathered: it keeps the last modules of a forward pass whole for a backward pass, which a
    validation hasn't, and a model with whole modules can't be saved."""
    for module in part.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class TextBatches:
    """At most ``steps`` batches of torchtitan's own loader; -1 takes all there are."""

    def __init__(self, loader: Iterable[Batch], steps: int) -> None:
        self.loader = loader
        self.steps = steps

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self.loader), None if self.steps < 0 else self.steps)


class TextValidator(StageValidator):
    """A :class:`StageValidator` over one of torchtitan's datasets, or a stream; the last batch may have fewer rows."""

    def __init__(
        self, job_config: JobConfig, dp_world_size: int, dp_rank: int, tokenizer: BaseTokenizer, **parts: Any
    ) -> None:
        BaseValidator.__init__(self, job_config)
        steps = job_config.validation.steps
        if steps < 0 and dp_world_size > 1:
            logger.warning("validation.steps is -1: ranks that find different numbers of rows wait for one another.")
        loader = build_text_validation_dataloader(dp_world_size, dp_rank, tokenizer, job_config, infinite=steps >= 0)
        self.validation_dataloader = TextBatches(WithinDocuments(loader, tokenizer), steps)
        for name, part in {"tokenizer": tokenizer, **parts}.items():
            setattr(self, name, part)
