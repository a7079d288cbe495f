"""A training stage's loggers: their history is ``metrics.jsonl``, and their failures don't end the training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torchtitan.components.metrics import BaseLogger
from torchtitan.config import JobConfig
from torchtitan.tools.logging import logger

from titan.tracking.run_record import reason
from titan.tracking.stores.store_logger import StoreLogger
from titan.tracking.tensorboard_logger import TensorBoardLogger
from titan.tracking.wandb_logger import WandbLogger
from titanflow.runs.contract import StageRun
from titanflow.runs.tracker_record import asked_trackers


class ForgivingLoggers(BaseLogger):
    """Loggers whose failures don't end the training: a logger's first failure is logged, and removes it."""

    def __init__(self, inner: Iterable[Any] = ()) -> None:
        self.inner = list(inner)

    def begin(self, rows: dict[int, dict[str, float]]) -> None:
        """Opens the loggers, with ``rows`` (step → values) as their history."""
        self._each("begin", rows)

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Logs values of a step; calls for the same step make one row."""
        self._each("log", metrics, step)

    def complete(self) -> None:
        """The last step is logged. The W&B run stays open: the stage still adds its model."""
        self._each("complete")
        self.inner.clear()

    def close(self) -> None:
        """Ends the loggers' runs, as failed during an exception."""
        self._each("close")
        self.inner.clear()

    def _each(self, method: str, *args: Any) -> None:
        for one in list(self.inner):
            try:
                getattr(one, method)(*args)
            except Exception as error:
                logger.error(f"{one.name} failed and is left out from here on: {reason(error)}")
                self.inner.remove(one)


def stage_loggers(run: StageRun, job_config: JobConfig, is_metrics_rank: bool) -> ForgivingLoggers:
    """The loggers that ``metrics`` asks for; with ``save_for_all_ranks`` TensorBoard has a folder for each rank."""
    config = job_config.metrics
    found: list[Any] = []
    asked = asked_trackers({"metrics": vars(config)}) if is_metrics_rank else []
    found += [WandbLogger(run) if tracker == "wandb" else StoreLogger(run, tracker) for tracker in asked]
    if config.enable_tensorboard and (is_metrics_rank or config.save_for_all_ranks):
        folder = Path(run.folder) / config.save_tb_folder
        found.append(TensorBoardLogger(folder / f"rank_{dist.get_rank()}" if config.save_for_all_ranks else folder))
    return ForgivingLoggers(found)
