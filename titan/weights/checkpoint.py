"""Which checkpoints of a stage count, and what happens to those that don't.

A folder without metadata was left by an interrupted save and is removed. A checkpoint that was complete but isn't any
more, or whose checksums are wrong, is set aside: the stage resumes from the one before it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torchtitan.tools.logging import logger

from titanflow.common.errors import ConfigError, Problem, StageFailed
from titanflow.runs.checkpoints import (
    METADATA,
    complete_folders,
    damage,
    differences,
    flaw,
    read_contents,
    refuse_other,
    step_folders,
    stored_model,
)

DAMAGED_FOLDER = "damaged"
"""In a stage's folder: checkpoints that were damaged after they were saved."""
PROBE_BYTES = 1 << 20
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint; ``full`` says whether training can resume from it, or it holds the model alone."""

    step: int
    path: Path
    full: bool


def complete_checkpoints(folder: Path) -> Iterator[Checkpoint]:
    """The complete checkpoints in ``folder``, newest first, each looked at when it is asked for."""
    for step, path in complete_folders(folder):
        yield Checkpoint(step, path, any(key.startswith("optimizer.") for key in read_contents(path).shapes))


def resume_point(folder: Path, steps: int) -> Checkpoint | None:
    """Where a stage resumes: its newest complete checkpoint with a training state; None to start afresh."""
    last = newest = None
    for checkpoint in complete_checkpoints(folder):
        last = last or checkpoint
        if checkpoint.full:
            newest = checkpoint
            break
    if last and newest is None:
        raise ConfigError(
            Problem(
                f"{last.path} holds the model alone, and {steps - last.step} steps are left to train",
                key="checkpoint.last_save_model_only",
                hint="start the run afresh under another name; with last_save_model_only: false it could be resumed",
            )
        )
    return newest


def sound_resume_point(folder: Path, steps: int, group: dist.ProcessGroup | None = None) -> Checkpoint | None:
    """:func:`resume_point` among checkpoints with the bytes that were written; others are set aside.

    Each rank of ``group`` reads a part; without a group this process is alone.
    """
    rank, ranks = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
    while found := resume_point(folder, steps):
        reasons: list[str] = [damage(found.path, rank, ranks)]
        if group is not None:
            reasons, own = [""] * ranks, reasons[0]
            dist.all_gather_object(reasons, own, group=group)
        reason = next(filter(None, reasons), "")
        if not reason:
            return found
        if rank == 0:
            set_aside(found.path, reason)
        if group is not None:
            dist.barrier(group)
    return None


def remove_incomplete(folder: Path) -> None:
    """Removes what interrupted saves and removals left, and sets aside what was damaged after its save."""
    newest = next((step for step, _ in complete_folders(folder)), -1)
    for step, path in step_folders(folder).items():
        reason = flaw(path)
        if not reason:
            continue
        # torchtitan keeps the newest few: an older one was being removed.
        if step > newest and (path / METADATA).exists():
            set_aside(path, reason)
        else:
            logger.warning(f"Removing {path}: {reason}.")
            shutil.rmtree(path)
    _remove_empty(folder)


def set_aside(path: Path, reason: str) -> None:
    """Moves a damaged checkpoint to ``damaged/`` in its stage's folder, where nothing looks for one."""
    aside = path.parent.parent / DAMAGED_FOLDER / path.name
    logger.warning(f"{path} is not loaded: {reason}. It is kept as {aside}, and training goes on from the one before.")
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(exist_ok=True)
    path.rename(aside)
    _remove_empty(path.parent)


def _remove_empty(folder: Path) -> None:
    """Removes an empty folder: torchtitan loads an initial checkpoint only if its own folder doesn't exist."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def check_weights(path: Path, model_state: Mapping[str, Any]) -> None:
    """Refuses a ``step-N`` folder that isn't exactly this model's: torchtitan loads what fits and says nothing."""
    if reason := flaw(path):
        raise ConfigError(Problem(f"no complete checkpoint: {reason}", origin=str(path), expected="a step-N folder"))
    wanted = _of_all_ranks({key: tuple(value.shape) for key, value in model_state.items()})
    refuse_other(differences(stored_model(path), wanted), path)


def _of_all_ranks(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The whole model's tensors: under pipeline parallelism a rank has only its stages'."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return shapes
    gathered: list[dict[str, tuple[int, ...]]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, shapes)
    return {key: shape for one in gathered for key, shape in one.items()}


def save_failure(error: BaseException, path: Path) -> StageFailed:
    """The error to show where saving ``path`` failed."""
    complete = next((other for _, other in complete_folders(path.parent) if other != path), None)
    causes = [failure[0] for failure in error.failures.values()] if isinstance(error, CheckpointException) else [error]
    full = no_room(path)
    reason = f"the disk is full ({full})" if full else f"{type(causes[0]).__name__}: {causes[0]}"
    last = f"the last complete checkpoint is {complete}" if complete else "there is no complete checkpoint"
    return StageFailed(
        f"{path}: the checkpoint could not be saved: {reason}; {last}. "
        f"{'Make room' if full else 'Mend that'}, and run the same command again: it goes on from there."
    )


def no_room(path: Path) -> str:
    """The system's error when it allocates another file like those in ``path``; empty if there is room.

    A failed save's own error doesn't tell: torch's writer turns it into "unexpected pos".
    """
    largest = max((file.stat().st_size for file in path.glob("*")), default=0)
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            os.posix_fallocate(file.fileno(), 0, largest + PROBE_BYTES)
    except OSError as error:
        return str(error) if error.errno in NO_SPACE else ""
    return ""
