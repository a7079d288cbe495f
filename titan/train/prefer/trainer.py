"""Trains on pairs: the stage's trainer with a loss over pairs, and the base's log-probabilities beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torchtitan.config import JobConfig
from torchtitan.distributed import utils as dist_utils

from titan.models.documents import Inputs
from titan.models.experts import uncounted
from titan.process.interrupt import Interruption
from titan.tracking.metrics import data_parallel_degree
from titan.train.dataloader import Batch, PreparedDataLoader, Rows, ValidationLoader
from titan.train.local_rows import nearest
from titan.train.prefer.loss import STATISTICS, answer_logps
from titan.train.prefer.pair_loss import PairLoss
from titan.train.prefer.reference import SAMPLED, Place, reference_logps
from titan.train.prefer.sides import PAIRS, apart
from titan.train.prefer.validate import PairValidator
from titan.train.trainer import Trainer
from titan.train.validate import reshard
from titanflow.data.mixture import open_rows
from titanflow.runs.contract import StageRun


class PreferenceTrainer(Trainer):
    """Gradients are sums over the pairs of all ranks and microbatches, divided by their number.

    The reference is the stage's base. Its log-probabilities are read, or computed, while the model has its weights. New
    adapters change nothing, so that with them the reference is the base without adapters.
    """

    looks_at_base = True

    def __init__(self, job_config: JobConfig, interruption: Interruption, run: StageRun) -> None:
        super().__init__(job_config, interruption)
        assert isinstance(self.loss_fn.loss_fn, PairLoss)
        self.run = run
        self.pair_loss = self.loss_fn.loss_fn
        self.reference = torch.empty(0, 2)
        self._pairs: Any = 0.0
        self.metrics_processor.pairs = self.statistics
        self.metrics_processor.is_of_tokens = False

    def train_step(self, data_iterator: Iterator[Batch]) -> None:
        self.pair_loss.begin()
        super().train_step(self._counted(data_iterator))

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches of one step, whose pairs on all ranks are counted first."""
        step = [next(batches) for _ in range(self.gradient_accumulation_steps)]
        count = torch.tensor(float(sum(len(input_dict[PAIRS]) for input_dict, _ in step)), device=self.device)
        is_shared = self.parallel_dims.dp_enabled
        self._pairs = dist_utils.dist_sum(count, self.parallel_dims.get_mesh("batch")) if is_shared else count
        yield from step

    def forward_backward_step(
        self, *, input_dict: dict[str, torch.Tensor], labels: torch.Tensor, global_valid_tokens: torch.Tensor
    ) -> torch.Tensor:
        """The base class's, with the loss divided by the step's pairs in place of its tokens."""
        return super().forward_backward_step(
            input_dict=input_dict,
            labels=labels,
            global_valid_tokens=self._pairs,
        )

    def loss_parts(self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        return torch.tensor(len(input_dict[PAIRS]), device=labels.device)

    def post_dataloading_process(self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor) -> Inputs:
        """The base class's for what the model takes; the loss is told which pairs these are."""
        inputs, sides = apart(input_dict)
        self.pair_loss.look_at(sides, self.reference)
        return super().post_dataloading_process(inputs, labels)

    def base_is_loaded(self) -> None:
        """Reads or computes the reference's log-probabilities of the training's pairs, and of the validation's."""
        assert self.run.data.train is not None
        config = self.job_config
        self.reference = self._reference(self.run.data.train, config.training.seq_len)
        if config.validation.enable and self.run.data.validation is not None:
            assert isinstance(self.validator, PairValidator)
            self.validator.reference = self._reference(self.run.data.validation, config.validation.seq_len)

    def _reference(self, folder: Path, seq_len: int) -> torch.Tensor:
        """The log-probabilities of a folder's pairs on this rank's device, ``[pairs, 2]``."""
        rows, place = open_rows(nearest(self.run, folder), seq_len), Place.of(self.run, folder, self.job_config)
        mesh = self.parallel_dims.get_mesh("batch") if self.parallel_dims.dp_enabled else None
        sampled = max(1, SAMPLED // self.job_config.training.local_batch_size)
        for part in self.model_parts:
            part.eval()
        with uncounted(self.model_parts):
            logps = reference_logps(
                *(place, rows.info.documents, self._loader(rows), self._loader(rows, sampled), self._score, mesh)
            )
        for part in self.model_parts:
            part.train()
            reshard(part)
        return logps.to(self.device)

    def _loader(self, rows: Rows, steps: int = -1) -> ValidationLoader:
        dims = self.parallel_dims
        return ValidationLoader(
            rows,
            local_batch_size=self.job_config.training.local_batch_size,
            rank=dims.get_mesh("batch").get_local_rank() if dims.dp_enabled else 0,
            ranks=data_parallel_degree(dims),
            steps=steps,
            trim=isinstance(self.dataloader, PreparedDataLoader) and self.dataloader.trim,
        )

    def _score(self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, sides = apart({name: value.to(self.device) for name, value in input_dict.items()})
        batch = super().post_dataloading_process(inputs, labels.to(self.device))
        tokens, labels, extra_inputs, extra_kwargs = batch
        with self.train_context(), self.maybe_enable_amp:
            return answer_logps(self.model_parts[0](tokens, **extra_inputs, **extra_kwargs), labels, sides)

    def statistics(self, section: str) -> dict[str, float]:
        """A section of the step's :data:`titan.train.prefer.loss.STATISTICS`: means over all ranks' pairs."""
        sums: Any = self.pair_loss.sums
        if self.parallel_dims.dp_enabled:
            mesh = self.parallel_dims.get_mesh("batch")
            sums = [dist_utils.dist_sum(one.to(self.device), mesh) for one in sums]
        *values, pairs = map(float, sums)
        named = zip(STATISTICS, values, strict=True)
        return {
            name.rpartition("/")[2]: value / pairs for name, value in named if pairs and name.startswith(f"{section}/")
        }
