"""torchtitan's Trainer with a loop that can be stopped and resumed at any step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchtitan.train
from torch import nn
from torch.distributed import distributed_c10d
from torchtitan.components.checkpoint import MODEL
from torchtitan.components.dataloader import DataloaderExhaustedError
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.config import JobConfig
from torchtitan.distributed import utils as dist_utils
from torchtitan.tools.logging import logger
from torchtitan.tools.profiling import maybe_enable_memory_snapshot, maybe_enable_profiling

from titan.models.documents import Inputs, document_inputs
from titan.models.experts import uncounted
from titan.models.lora import step_seed
from titan.models.routers import RouterStatistics, routed_parts
from titan.process.hosts import tell_hosts
from titan.process.interrupt import Interruption
from titan.tracking.metrics import StageMetrics, data_parallel_degree
from titan.train.batch_record import BatchRecord
from titan.train.chunked_loss import with_labels
from titan.train.data_parallel import StageLoss
from titan.train.dataloader import Batch, PreparedDataLoader
from titan.train.streaming import check_ranks
from titan.weights import checkpoint
from titan.weights.adapters import TrainedState, load_weights
from titan.weights.dense_to_routed import load_dense
from titan.weights.moving_mean import MovingMean
from titan.weights.saver import CheckpointSaver
from titan.weights.stage_model import named_weights
from titanflow.architectures.families.registry import PARAMETER_GROUPS
from titanflow.common.errors import StageFailed
from titanflow.planning.extension.schedule import Schedule
from titanflow.runs.checkpoints import read_contents

FAILED = 2
"""Sent among the ranks in place of an interruption where a save in the background failed."""


class NothingToTrain(Exception):
    """No token of the global batch has a label; raised on all ranks at once, before any computes."""


class Trainer(torchtitan.train.Trainer):
    """Trains a stage from its newest complete checkpoint, or from its base, to its last step."""

    metrics_processor: StageMetrics
    loss_fn: StageLoss
    looks_at_base = False
    """Whether a stage that resumes needs its base's weights before its own, for :meth:`base_is_loaded`."""

    def __init__(self, job_config: JobConfig, interruption: Interruption) -> None:
        super().__init__(job_config)
        self.interruption = interruption
        self.folder = Path(job_config.job.dump_folder) / job_config.checkpoint.folder
        # The ranks exchange signals in a CPU tensor, so that no GPU waits for it.
        self._cpu_group = dist.new_group(backend="gloo") if dist.get_world_size() > 1 else None
        if isinstance(self.dataloader, PreparedDataLoader):
            self.metrics_processor.shares = self.dataloader.shares
        self.metrics_processor.tokens = lambda: self.ntokens_seen * data_parallel_degree(self.parallel_dims)
        self._routers = self._set_up_routers()
        self._batches = self._set_up_batches()
        sections = {"training": vars(job_config.training), "lr_scheduler": vars(job_config.lr_scheduler)}
        kept = Schedule.of(sections).kept_step
        self._saver = CheckpointSaver(self.checkpointer, self.folder, job_config.checkpoint, kept)
        self._mean: MovingMean | None = None
        self._trained_before = 0
        self._warmed_up = False
        self._drops = bool(job_config.lora.dropout) or any(
            isinstance(module, nn.Dropout) and module.p > 0 for part in self.model_parts for module in part.modules()
        )
        if job_config.lora.rank:
            self.checkpointer.states[MODEL] = TrainedState(self.model_parts)
        if job_config.training.mixed_precision_param == "float32":
            # Autocast to float32 warns on a CPU and does nothing anywhere.
            self.maybe_enable_amp = contextlib.nullcontext()
            if job_config.validation.enable:
                self.validator.maybe_enable_amp = self.maybe_enable_amp

    def train(self) -> bool:
        """Trains to the last step; returns False if it was interrupted before and has saved."""
        tell_hosts(self._cpu_group)
        self._load()
        self.metrics_processor.begin(self.step)
        self._batches.begin(self.step)
        logger.info(f"Training starts at step {self.step + 1}")
        assert self.dataloader is not None
        with self._profilers() as profilers:
            batches = self.batch_generator(self.dataloader)
            # Until here a signal ends the process: there is nothing to save, and other ranks may never come.
            self.interruption.defer()
            self._catch_up_validation()
            while self.should_continue_training():
                if self._is_interrupted():
                    self._saver.save(self.step)
                    self._saver.wait()
                    logger.info(f"Interrupted: step {self.step} is saved, and the same command goes on from there.")
                    return False
                if not self._step(batches):
                    break
                for profiler in profilers:
                    profiler.step()
        self._saver.wait()
        logger.info("Training completed")
        return True

    def batch_generator(self, data_iterable: Iterable[Batch]) -> Iterator[Batch]:
        """torchtitan's, counting the tokens that are trained."""
        for input_dict, labels in super().batch_generator(data_iterable):
            self.metrics_processor.trained_tokens += int((labels != IGNORE_INDEX).sum())
            self._batches.add(input_dict["input"], labels)
            if self._drops:
                # After the fetch, because fetching the first batch draws a number too.
                self._seed_dropout()
            yield input_dict, labels

    def post_dataloading_process(self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor) -> Inputs:
        """torchtitan's, except for a model that makes its masks from the rows' positions."""
        inputs = document_inputs(self.model_parts[0], input_dict, labels)
        return with_labels(inputs or super().post_dataloading_process(input_dict, labels), self.model_parts[0])

    def train_step(self, data_iterator: Iterator[Batch]) -> None:
        """torchtitan's: gradients summed over all ranks and microbatches, divided by the number of trained tokens."""
        self.metrics_processor.begin_step()
        if self._routers is not None:
            self._routers.begin_step()
            for part in self._routers.parts:
                part.begin_step(self.step, self.job_config.training.steps)
        self._trained_before = self.metrics_processor.trained_tokens
        super().train_step(data_iterator)

    def forward_backward_step(
        self, *, input_dict: dict[str, torch.Tensor], labels: torch.Tensor, global_valid_tokens: torch.Tensor
    ) -> torch.Tensor:
        """torchtitan's, with a pipeline's gradients divided by the tokens as all others are."""
        if self._trains_nothing(global_valid_tokens):
            raise NothingToTrain
        if self.parallel_dims.pp_enabled:
            self.loss_fn.tokens = float(global_valid_tokens)
        loss = super().forward_backward_step(
            input_dict=input_dict, labels=labels, global_valid_tokens=global_valid_tokens
        )
        if self._routers is not None:
            self._routers.add_microbatch()
        self.metrics_processor.add_loss(loss.detach() * global_valid_tokens, self.loss_parts(input_dict, labels))
        return loss

    def loss_parts(self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """The number of parts that a microbatch's loss is the sum of, ``[]``: its trained tokens."""
        return (labels != IGNORE_INDEX).sum()

    def _set_up_routers(self) -> RouterStatistics | None:
        """Gives each row of the global batch the same weight in the auxiliary losses, whichever rank computes it."""
        parts = routed_parts(self.model_parts)
        if not parts:
            return None
        local = self.job_config.training.local_batch_size * data_parallel_degree(self.parallel_dims)
        for part in parts:
            part.set_auxiliary_scale(self.loss_fn.ranks / (local * self.gradient_accumulation_steps))
        mesh = self.parallel_dims.get_mesh("batch") if self.parallel_dims.dp_enabled else None
        routers = RouterStatistics(parts, mesh)
        self.metrics_processor.routers = routers.read
        return routers

    def _set_up_batches(self) -> BatchRecord:
        dims, group = self.parallel_dims, None
        if dims.dp_enabled and BatchRecord.is_wanted():
            # Ranks that share a batch would count its rows more than once.
            own = dims.get_mesh("batch").get_group()
            group = dist.new_group(dist.get_process_group_ranks(own), backend="gloo", use_local_synchronization=True)
        return BatchRecord(Path(self.job_config.job.dump_folder), group, self.metrics_processor.writes)

    def _trains_nothing(self, global_valid_tokens: torch.Tensor | float) -> bool:
        if isinstance(global_valid_tokens, torch.Tensor):
            # On one rank the labels were counted on the CPU; reading the tensor would wait for the device.
            return self.metrics_processor.trained_tokens == self._trained_before
        return global_valid_tokens == 0

    def state_dict(self) -> dict[str, Any]:
        """The step, and the tokens that all ranks have seen: another number of ranks can resume from them."""
        return {"step": self.step, "ntokens_seen": self.ntokens_seen * data_parallel_degree(self.parallel_dims)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]
        self.ntokens_seen = state_dict["ntokens_seen"] // data_parallel_degree(self.parallel_dims)

    def _step(self, batches: Iterator[Batch]) -> bool:
        config = self.job_config
        self.step += 1
        self.gc_handler.run(self.step)
        is_trained = True
        try:
            self.train_step(batches)
        except NothingToTrain:
            is_trained = False
            self._skip_step()
        except DataloaderExhaustedError:
            self.step -= 1
            logger.warning(f"Ran out of data after step {self.step}.")
            self._saver.save(self.step, last=True)
            return False
        if self._mean is not None:
            self._mean.update(self.step)
        self._batches.write(self.step)
        self._saver.save_if_due(self.step, last=self.step == config.training.steps)
        if config.validation.enable and self.validator.should_validate(self.step):
            self._validate()
        if is_trained and not self._warmed_up:
            self._warmed_up = True
            self._shorten_timeouts()
        return True

    def _skip_step(self) -> None:
        """Counts the step, so that data and learning rate stay on schedule, but leaves weights and moments alone."""
        logger.warning(f"step: {self.step:2}  skipped: not one token of the global batch has a label")
        self.lr_schedulers.step()

    def _seed_dropout(self) -> None:
        """Derives dropout from seed, step and rank alone, so that a resumed run drops the same."""
        dims = self.parallel_dims
        rank = dims.get_mesh("batch").get_local_rank() if dims.dp_enabled else 0
        torch.manual_seed(step_seed(self.job_config.debug.seed or 0, self.step, rank))

    def _shorten_timeouts(self) -> None:
        """After the first step nothing is left to set up or compile, so a shorter timeout shows a hang sooner."""
        timeout = timedelta(seconds=self.job_config.comm.train_timeout_seconds)
        dist_utils.set_pg_timeouts(timeout=timeout, parallel_dims=self.parallel_dims)
        if self._cpu_group is not None:
            distributed_c10d._set_pg_timeout(timeout, self._cpu_group)

    def _is_interrupted(self) -> bool:
        """Whether any rank was told to stop; raises if a save in the background failed on any."""
        state = FAILED if self._saver.has_failed else int(self.interruption.requested)
        if self._cpu_group is not None:
            flag = torch.tensor([state])
            dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._cpu_group)
            state = int(flag.item())
        if state == FAILED:
            self._saver.wait()
            raise StageFailed("another rank could not save its part of the last checkpoint")
        return bool(state)

    def _catch_up_validation(self) -> None:
        """Validates the saved step if the run ended before its validation was written."""
        if not (self.step and self.job_config.validation.enable):
            return
        if self.validator.should_validate(self.step) and not self.metrics_processor.is_validated(self.step):
            self._validate()

    def _validate(self) -> None:
        """Validates the model that the stage makes: the mean of its weights, if it keeps one."""
        with uncounted(self.model_parts), self._mean.in_place() if self._mean else contextlib.nullcontext():
            self.validator.validate(self.model_parts, self.step)

    def _load(self) -> None:
        if dist.get_rank() == 0:
            checkpoint.remove_incomplete(self.folder)
        dist.barrier()
        found = checkpoint.sound_resume_point(self.folder, self.job_config.training.steps, self._cpu_group)
        if found is not None:
            check_ranks(read_contents(found.path).shapes, data_parallel_degree(self.parallel_dims))
            if self.job_config.lora.rank:
                checkpoint.check_weights(found.path, self.checkpointer.states[MODEL].state_dict())
            if self.job_config.lora.rank or self.looks_at_base:
                self._load_base(resumes=True)
                self.base_is_loaded()
            self._set_up_mean()
            self.checkpointer.load(step=found.step)
            self._saver.saved_step = found.step
            return
        self._load_base()
        self.base_is_loaded()
        self._set_up_mean()

    def _set_up_mean(self) -> None:
        """Keeps the mean of the weights from here on. What a stage begins with is loaded before, into the model."""
        if (decay := self.job_config.training.ema) is not None:
            self._mean = MovingMean(self.model_parts, self.checkpointer.states[MODEL], decay)
            self.checkpointer.states |= self._mean.states

    def base_is_loaded(self) -> None:
        """Called when the model has its base's weights, before those of a checkpoint."""

    def _load_base(self, resumes: bool = False) -> None:
        """Loads what the stage starts from; for LoRA that is the frozen weights, which its own checkpoints lack.

        A stage that ``resumes`` has checkpoints of its own, which torchtitan would load in place of its base.
        """
        config = self.job_config.checkpoint
        if config.initial_load_path:
            weights = named_weights(Path(config.initial_load_path))
            self.checkpointer.initial_load_path = str(weights.whole)
            grows = bool(self.job_config.tokenizer.new_special_tokens)
            if resumes or self.job_config.lora.rank or weights.adapters or grows:
                load_weights(self.model_parts, weights, self.checkpointer.sd_adapter, grows=grows)
                return
            if self._routers is not None and self._load_dense(weights.whole):
                return
            if not config.initial_load_in_hf:
                checkpoint.check_weights(weights.whole, self.checkpointer.states[MODEL].state_dict())
        self.checkpointer.load()

    def _load_dense(self, path: Path) -> bool:
        """Copies what a dense model shares with this one; False if the weights aren't a dense model's."""
        groups = PARAMETER_GROUPS.get(self.job_config.model.name, {})
        new = [name for names in groups.values() for name in names]
        state = self.checkpointer.states[MODEL].state_dict()
        return load_dense(self.model_parts[0], state, path, self.checkpointer.sd_adapter, new)

    @contextlib.contextmanager
    def _profilers(self) -> Iterator[list[Any]]:
        config = self.job_config
        place = {"global_step": self.step, "base_folder": config.job.dump_folder}
        with (
            maybe_enable_profiling(config.profiling, **place) as profiler,
            maybe_enable_memory_snapshot(config.profiling, **place) as memory,
        ):
            yield [one for one in (profiler, memory) if one]
