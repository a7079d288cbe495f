"""Saves a training's checkpoints through torchtitan's checkpoint manager, at once or in the background."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torchtitan.components.checkpoint import MODEL, CheckpointManager
from torchtitan.config.job_config import Checkpoint as CheckpointConfig

from titan.weights import checkpoint
from titanflow.runs.checkpoints import invalidate, is_due, superfluous


class ExportedState:
    """A model's state with floating-point tensors converted to ``dtype`` each time it is asked for."""

    def __init__(self, state: Any, dtype: torch.dtype) -> None:
        self.state = state
        self.dtype = dtype

    def state_dict(self) -> dict[str, Any]:
        return {
            key: value.to(self.dtype) if torch.is_tensor(value) and value.is_floating_point() else value
            for key, value in self.state.state_dict().items()
        }


class CheckpointSaver:
    """Saves steps; with ``checkpoint.async_mode`` all but the last are written while training continues.

    ``saved_step`` is the last step that was saved or loaded. The checkpoint of ``kept_step``, if any, is saved whatever
    the interval, and stays whatever ``checkpoint.keep_latest_k`` says.
    """

    def __init__(
        self, manager: CheckpointManager, folder: Path, config: CheckpointConfig, kept_step: int | None = None
    ) -> None:
        self.manager = manager
        self.folder = folder
        self.config = config
        self.saved_step = 0
        self.kept_step = kept_step
        # torchtitan's manager knows the newest few alone: it would remove the kept one, and for each interruption's
        # checkpoint one that is due.
        self._keeps_latest, manager.keep_latest_k = manager.keep_latest_k, 0
        self._in_background: Path | None = None

    @property
    def has_failed(self) -> bool:
        """Whether a save in the background has failed on this rank."""
        future = self.manager.save_future
        return future is not None and future.done() and future.exception() is not None

    def save_if_due(self, step: int, last: bool = False) -> None:
        """Saves the last step, each ``checkpoint.interval`` steps, the kept one, and the first if the config says so.

        Raises:
            StageFailed: this one, or the one before, can't be saved.
        """
        if last or is_due(step, vars(self.config), self.kept_step):
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
            invalidate(path)
        interval, self.manager.interval = self.manager.interval, 1
        try:
            with self._exported() if last and self.config.last_save_model_only else contextlib.nullcontext():
                self.manager.save(step, last_step=last)
        except CheckpointException as error:
            _give_up(path, error)
        finally:
            self.manager.interval = interval
        self.saved_step, self._in_background = step, path
        if self._keeps_latest and not last and dist.get_rank() == 0:
            for old in superfluous(self.folder, self._keeps_latest, vars(self.config), self.kept_step):
                self.manager.purge_queue.put(str(old))

    @contextlib.contextmanager
    def _exported(self) -> Iterator[None]:
        """Shows the manager the model in ``checkpoint.export_dtype``.

        torchtitan converts to any type but float32: a model trained in bfloat16 would be saved in it, whatever the log
        says.
        """
        model, dtype = self.manager.states[MODEL], self.manager.export_dtype
        self.manager.states[MODEL] = ExportedState(model, dtype)
        try:
            yield
        finally:
            self.manager.states[MODEL] = model

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
        except (CheckpointException, Exception) as error:  # the former isn't a subclass of the latter
            _give_up(self._in_background, error)


def _give_up(path: Path, error: BaseException) -> NoReturn:
    failure = checkpoint.save_failure(error, path)
    # Every rank has the exception. All look at the disk (save_failure) before one removes what fills it.
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(path, ignore_errors=True)
    raise failure from error
