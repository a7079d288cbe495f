"""Metrics of a training stage: ``metrics.jsonl``, the log, and the loggers, which show the file's records."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torchtitan.components.metrics import MetricsProcessor, _get_metrics_rank
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims
from torchtitan.distributed import utils as dist_utils
from torchtitan.tools import utils
from torchtitan.tools.logging import logger

from titan.tracking.loggers import ForgivingLoggers, stage_loggers
from titan.tracking.measures.registry import MEASURES
from titan.tracking.metric_names import named, rows
from titan.tracking.metrics_file import MetricsFile
from titanflow.common.errors import StageFailed
from titanflow.runs.contract import METRICS_FILE, StageRun

MAX_EXPONENT = 20.0


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token, at most exp(20)."""
    return math.exp(min(loss, MAX_EXPONENT))


class StageMetrics(MetricsProcessor):
    """torchtitan's metrics processor with the records of a stage.

    ``trained_tokens`` counts this rank's trained labels; the trainer adds to it. ``tokens`` returns the input tokens of
    all ranks so far, ``shares`` each source's share of them in a mixture, ``routers`` the routers' statistics, and
    ``pairs`` a section of those of preferences; all are only called in logged steps. ``is_of_tokens`` says that the
    loss is in nats a token, so that it has a perplexity.
    """

    def __init__(
        self, job_config: JobConfig, parallel_dims: ParallelDims, loggers: ForgivingLoggers | None = None
    ) -> None:
        # torchtitan's loggers begin before the first step is known, and in a new folder for each start.
        own = dataclasses.replace(job_config.metrics, enable_wandb=False, enable_tensorboard=False)
        super().__init__(dataclasses.replace(job_config, metrics=own), parallel_dims)
        self.job_config = job_config
        self.logger: ForgivingLoggers = loggers or ForgivingLoggers()
        self.file = MetricsFile(Path(job_config.job.dump_folder) / METRICS_FILE)
        self.writer = _get_metrics_rank(parallel_dims, job_config)
        self.writes = torch.distributed.get_rank() == self.writer
        self.trained_tokens = 0
        self.tokens: Callable[[], int] = int
        self.shares: Callable[[], dict[str, float]] = dict
        self.routers: Callable[[], dict[str, float]] = dict
        self.pairs: Callable[[str], dict[str, float]] = lambda section: {}
        self.is_of_tokens = True
        self._losses: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._validated: set[int] = set()
        self._started = time.perf_counter()

    def begin(self, step: int) -> None:
        """Starts the clock at ``step``, the checkpoint's last, and drops all later records."""
        # The file of a long training has a hundred megabytes, too many for hundreds of ranks to read.
        reads = self.writes or self.logger.inner
        wanted = [record for record in self.file.records() if record["step"] <= step] if reads else []
        self._validated = self._as_writer({record["step"] for record in wanted if "validation_loss" in record})
        before = max((record["seconds"] for record in wanted), default=0.0)
        if self.writes:
            self.file.keep(lambda record: record["step"] <= step)
        self.logger.begin(rows(wanted))
        self._started = time.perf_counter() - before
        self.time_last_log = time.perf_counter()

    def _as_writer(self, steps: set[int]) -> set[int]:
        """The steps that the writing rank knows; all ranks call it."""
        told = [steps]
        if torch.distributed.get_world_size() > 1:
            torch.distributed.broadcast_object_list(told, src=self.writer)
        return told[0]

    def is_validated(self, step: int) -> bool:
        return step in self._validated

    def complete(self) -> None:
        """The last step is logged and saved; the W&B run stays open for the model."""
        self.logger.complete()

    def begin_step(self) -> None:
        self._losses.clear()

    def add_loss(self, loss: torch.Tensor, tokens: torch.Tensor) -> None:
        """Takes the summed loss and the number of trained tokens of one microbatch of this rank, each ``[]``."""
        self._losses.append((loss, tokens))

    def should_log(self, step: int) -> bool:
        """The first step, every ``metrics.log_freq`` steps, and the last."""
        return bool(super().should_log(step) or step == self.job_config.training.steps)

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        """Records a training step; all ranks call it.

        ``global_max_loss`` is ignored: torchtitan's is NaN if a rank had no trained token.

        Raises:
            StageFailed: the loss or the gradient isn't finite.
        """
        record = self._training_record(step, global_avg_loss, grad_norm, extra_metrics or {})
        if not (math.isfinite(global_avg_loss) and math.isfinite(grad_norm)):
            raise StageFailed(
                f"step {step}: the loss is {global_avg_loss} and the gradient's norm {grad_norm}: training has "
                "diverged. Lower optimizer.lr or lengthen lr_scheduler.warmup_steps; the checkpoints before are whole."
            )
        self._write(record)
        self._print(record)
        self.ntokens_since_last_log = 0
        self.trained_tokens = 0
        self.data_loading_times.clear()
        self.time_last_log = time.perf_counter()
        self.device_memory_monitor.reset_peak_stats()

    def log_validation(self, loss: float, step: int) -> None:
        """Records a validation's mean loss over all tokens, in nats; one that isn't finite is only logged."""
        if not math.isfinite(loss):
            logger.warning(f"validate step: {step:2}  the loss is {loss}, and not recorded: the weights have diverged")
            return
        record = {
            "step": step,
            "validation_loss": loss,
            **({"validation_perplexity": perplexity(loss)} if self.is_of_tokens else {}),
            "tokens": self.tokens(),
            "seconds": time.perf_counter() - self._started,
        }
        self._validated.add(step)
        self._write(record)
        if self.writes:
            shown = f"  perplexity: {record['validation_perplexity']:,.2f}" if self.is_of_tokens else ""
            logger.info(
                f"{self.color.yellow}validate step: {step:2}  {self.color.green}loss: {loss:7.4f}{shown}"
                f"{self.color.reset}"
            )

    def _training_record(self, step: int, loss: float, grad_norm: float, extra: dict[str, Any]) -> dict[str, Any]:
        elapsed = time.perf_counter() - self.time_last_log
        degree = data_parallel_degree(self.parallel_dims)
        per_rank = self.ntokens_since_last_log / elapsed
        record: dict[str, Any] = {
            "step": step,
            "loss": loss,
            **({"perplexity": perplexity(loss)} if self.is_of_tokens else {}),
            "max_loss": self._max_loss_of_ranks(),
            "learning_rate": float(extra["lr"]),
            "grad_norm": grad_norm,
            # torchtitan also sums over the ranks of context parallelism, which share rows.
            "tokens": int(extra["n_tokens_seen"]) // self.parallel_dims.cp,
            "tokens_per_second": per_rank * degree,
        }
        trained = self._trained_on_all_ranks()
        if trained != self.ntokens_since_last_log * degree:
            record["trained_tokens_per_second"] = trained / elapsed
        if math.isfinite(self.gpu_peak_flops):
            per_device = per_rank / self.parallel_dims.non_data_parallel_size
            record["mfu"] = 100 * self.num_flops_per_token * per_device / self.gpu_peak_flops
        if shares := self.shares():
            record["shares"] = shares
        if routers := finite("router", self.routers()):
            record["router"] = routers
        for section, file in MEASURES.items():
            if values := finite(section, file.measure(self)):
                record[section] = values
        record["seconds"] = time.perf_counter() - self._started
        return record

    def _max_loss_of_ranks(self) -> float:
        losses, tokens = (torch.stack(column).sum() for column in zip(*self._losses, strict=True))
        losses = losses.full_tensor() if isinstance(losses, DTensor) else losses
        mean = torch.where(tokens > 0, losses / tokens.clamp(min=1), -math.inf)
        mesh = self.parallel_dims.get_optional_mesh("loss") if self.parallel_dims.dp_cp_enabled else None
        return float(dist_utils.dist_max(mean, mesh))

    def _trained_on_all_ranks(self) -> int:
        if not self.parallel_dims.dp_enabled:
            return self.trained_tokens
        local = torch.tensor(self.trained_tokens, dtype=torch.int64, device=utils.device_type)
        return int(dist_utils.dist_sum(local, self.parallel_dims.get_mesh("batch")))

    def _write(self, record: dict[str, Any]) -> None:
        if self.writes:
            self.file.append(record)
        self.logger.log(named(record), record["step"])

    def _print(self, record: dict[str, Any]) -> None:
        # Every node shows its first rank's lines; and in a pipeline only this rank has the loss.
        if not self.writes:
            return
        color = self.color
        mfu = f"  {color.magenta}mfu: {record['mfu']:.2f}%" if "mfu" in record else ""
        rate = record.get("trained_tokens_per_second")
        trained = f" ({rate:,.0f} trained)" if rate is not None else ""
        memory = self.device_memory_monitor.get_peak_stats()
        logger.info(
            f"{color.red}step: {record['step']:2}  "
            f"{color.green}loss: {record['loss']:8.5f}  {_beside_loss(record)}  "
            f"{color.orange}grad_norm: {record['grad_norm']:7.4f}  lr: {record['learning_rate']:.2e}  "
            f"{color.turquoise}memory: {memory.max_reserved_gib:5.2f}GiB  "
            f"{color.blue}tokens/s: {record['tokens_per_second']:,.0f}{trained}{mfu}{color.reset}"
        )


def _beside_loss(record: Mapping[str, Any]) -> str:
    """What the log shows of a step's loss: its perplexity, or how far apart the answers of pairs are."""
    if "perplexity" in record:
        return f"perplexity: {record['perplexity']:,.2f}"
    rewards = record.get("rewards", {})
    return f"margin: {rewards.get('margins', 0.0):.4f}  accuracy: {rewards.get('accuracies', 0.0):.2f}"


def finite(section: str, values: Mapping[str, float]) -> dict[str, float]:
    """The values that ``metrics.jsonl`` can hold, for JSON has no NaN; of the others the log has the names."""
    for key, value in values.items():
        if not math.isfinite(value):
            logger.warning(f"{section}/{key} is {value}, and not recorded")
    return {key: value for key, value in values.items() if math.isfinite(value)}


def data_parallel_degree(parallel_dims: ParallelDims) -> int:
    """The number of parts of the global batch."""
    return int(parallel_dims.get_mesh("batch").size()) if parallel_dims.dp_enabled else 1


def metrics_builder(run: StageRun) -> Callable[..., StageMetrics]:
    """The ``build_metrics_processor_fn`` of the run's ``TrainSpec``."""

    def build(job_config: JobConfig, parallel_dims: ParallelDims, *unused: Any) -> StageMetrics:
        has_metrics = torch.distributed.get_rank() == _get_metrics_rank(parallel_dims, job_config)
        return StageMetrics(job_config, parallel_dims, stage_loggers(run, job_config, has_metrics))

    return build
