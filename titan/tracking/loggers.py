"""The loggers of a training stage, whose history is that of ``metrics.jsonl``, and whose failures cost nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torchtitan.components.metrics import BaseLogger
from torchtitan.config import JobConfig
from torchtitan.tools.logging import logger

from titan.tracking.tensorboard_logger import TensorBoardLogger
from titan.tracking.wandb_logger import WandbLogger
from titanflow.run.contract import StageRun
from titanflow.run.wandb_record import wandb_mode

Rows = dict[int, dict[str, float]]


class ForgivingLoggers(BaseLogger):
    """Loggers whose failures don't end the training: the first is told, then that logger is left alone."""

    def __init__(self, inner: Iterable[Any] = ()) -> None:
        self.inner = list(inner)

    def begin(self, rows: Rows) -> None:
        """Opens the loggers: what they hold is ``rows``, step → values, before anything else is logged."""
        self._each("begin", rows)

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Logs what belongs to a step; calls of one step make one row."""
        self._each("log", metrics, step)

    def complete(self) -> None:
        """The last step is logged; what a stage has to add to its W&B run comes later, from elsewhere."""
        self._each("complete")
        self.inner.clear()

    def close(self) -> None:
        """Ends the loggers' runs, as failed while an exception passes."""
        self._each("close")
        self.inner.clear()

    def _each(self, method: str, *args: Any) -> None:
        for one in list(self.inner):
            try:
                getattr(one, method)(*args)
            except Exception as error:
                logger.error(f"{type(one).__name__} failed and is left out from here on: {error}")
                self.inner.remove(one)


def stage_loggers(run: StageRun, job_config: JobConfig, is_metrics_rank: bool) -> ForgivingLoggers:
    """The loggers that ``metrics`` asks for, on the rank that has the metrics.

    With ``metrics.save_for_all_ranks`` TensorBoard has a folder for each rank; a W&B run has one writer.
    """
    config = job_config.metrics
    found: list[Any] = []
    if config.enable_wandb and is_metrics_rank and wandb_mode() != "disabled":
        found.append(WandbLogger(run))
    if config.enable_tensorboard and (is_metrics_rank or config.save_for_all_ranks):
        folder = Path(run.folder) / config.save_tb_folder
        found.append(TensorBoardLogger(folder / f"rank_{dist.get_rank()}" if config.save_for_all_ranks else folder))
    return ForgivingLoggers(found)
