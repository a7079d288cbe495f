"""Saves a training's checkpoints through torchtitan's checkpoint manager, at once or in the background."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NoReturn

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.config.job_config import Checkpoint as CheckpointConfig

from titan import checkpoint


class CheckpointSaver:
    """Saves steps; with ``checkpoint.async_mode`` all but the last are written while training goes on.

    ``saved_step`` is the last step that was saved, or loaded.
    """

    def __init__(self, manager: CheckpointManager, folder: Path, config: CheckpointConfig) -> None:
        self.manager = manager
        self.folder = folder
        self.config = config
        self.saved_step = 0
        self._in_background: Path | None = None

    @property
    def has_failed(self) -> bool:
        """Whether a save in the background has failed on this rank."""
        future = self.manager.save_future
        return future is not None and future.done() and future.exception() is not None

    def save_if_due(self, step: int, last: bool = False) -> None:
        """Saves the last step, each ``checkpoint.interval`` steps, and the first where the config says so.

        Raises:
            StageFailed: this one, or the one before, can't be saved.
        """
        if last or step % self.config.interval == 0 or (step == 1 and self.config.enable_first_step_checkpoint):
            self.save(step, last)

    def save(self, step: int, last: bool = False) -> None:
        """Saves a step, unless it is saved.

        Raises:
            StageFailed: this one, or the one before, can't be saved.
        """
        if step == self.saved_step:
            return
        self.wait()
        path = self.folder / f"step-{step}"
        if dist.get_rank() == 0:
            checkpoint.invalidate(path)
        interval, self.manager.interval = self.manager.interval, 1
        try:
            self.manager.save(step, last_step=last)
        except CheckpointException as error:
            _give_up(path, error)
        finally:
            self.manager.interval = interval
        self.saved_step, self._in_background = step, path

    def wait(self) -> None:
        """Waits for a save in the background.

        Raises:
            StageFailed: it failed.
        """
        future = self.manager.save_future
        if future is None or self._in_background is None:
            return
        try:
            future.result()
        except (CheckpointException, Exception) as error:  # the former is none of the latter
            _give_up(self._in_background, error)


def _give_up(path: Path, error: BaseException) -> NoReturn:
    failure = checkpoint.save_failure(error, path)
    # The exception is every rank's; each has looked at the disk before what fills it is removed.
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(path, ignore_errors=True)
    raise failure from error
