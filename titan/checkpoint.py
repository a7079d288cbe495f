"""Which checkpoints of a stage count, and what is done with those that don't.

torchtitan writes ``step-N`` folders through torch's distributed checkpoint, whose ``.metadata`` comes last. A folder
without it is the rest of a save that was interrupted.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torchtitan.tools.logging import logger

from titan.native_model import TRAINING_STATE
from titanflow.checkpoints import METADATA, step_folders
from titanflow.errors import ConfigError, Problem, StageFailed

PROBE_BYTES = 1 << 20
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint; ``full`` says whether training can go on from it, or only the model is there."""

    step: int
    path: Path
    full: bool


def read_complete(path: Path) -> Metadata | None:
    """The metadata of a checkpoint all of whose files are there in full, else None."""
    if not (path / METADATA).is_file():
        return None
    try:
        metadata = FileSystemReader(path).read_metadata()
    except Exception:
        return None
    ends: dict[str, int] = {}
    for place in (metadata.storage_data or {}).values():
        ends[place.relative_path] = max(ends.get(place.relative_path, 0), place.offset + place.length)
    sizes = {name: (path / name).stat().st_size if (path / name).is_file() else -1 for name in ends}
    return metadata if all(sizes[name] >= end for name, end in ends.items()) else None


def complete_checkpoints(folder: Path) -> list[Checkpoint]:
    """The complete checkpoints in ``folder``, newest first."""
    found = [(step, path, read_complete(path)) for step, path in step_folders(folder).items()]
    return [
        Checkpoint(step, path, any(key.startswith("optimizer.") for key in metadata.state_dict_metadata))
        for step, path, metadata in found
        if metadata is not None
    ]


def resume_point(folder: Path, steps: int, load_step: int = -1) -> Checkpoint | None:
    """Where a stage goes on: its newest complete checkpoint with a training state; None to start afresh.

    Args:
        folder: where the ``step-N`` folders lie.
        steps: how many are to be trained.
        load_step: the step that the config asks for; -1 for the newest.

    Raises:
        ConfigError: only models were saved, or ``load_step`` isn't the newest checkpoint.
    """
    complete = complete_checkpoints(folder)
    newest = next((checkpoint for checkpoint in complete if checkpoint.full), None)
    if complete and newest is None:
        raise ConfigError(
            Problem(
                f"{complete[0].path} holds the model alone, and {steps - complete[0].step} steps are left to train",
                key="checkpoint.last_save_model_only",
                hint="start the run afresh under another name; with last_save_model_only: false it could be resumed",
            )
        )
    if load_step >= 0 and (newest is None or newest.step != load_step):
        raise ConfigError(
            Problem(
                f"found {load_step}, but a run goes on from its newest checkpoint, "
                f"{newest.path if newest else 'and there is none'}",
                key="checkpoint.load_step",
                hint="leave it out; to branch off, give another run that step as checkpoint.initial_load_path",
            )
        )
    return newest


def remove_incomplete(folder: Path) -> None:
    """Removes what interrupted saves left, and the folder itself if nothing else is in it.

    torchtitan looks for an initial checkpoint only where its own folder doesn't exist.
    """
    for path in step_folders(folder).values():
        if read_complete(path) is None:
            logger.warning(f"Removing {path}: its save was interrupted.")
            shutil.rmtree(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def state_keys(path: Path) -> list[str]:
    """The keys of everything that a checkpoint holds."""
    return list(FileSystemReader(path).read_metadata().state_dict_metadata)


def invalidate(path: Path) -> None:
    """Makes a checkpoint that is about to be written over incomplete, so that it counts only when it is whole."""
    (path / METADATA).unlink(missing_ok=True)


def check_weights(path: Path, model_state: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that isn't exactly this model's: torchtitan loads what fits and says nothing.

    Args:
        path: a ``step-N`` folder.
        model_state: the model's state dict (tensors or DTensors).

    Raises:
        ConfigError: there is no complete checkpoint, a tensor is missing or too many, or shapes differ.
    """
    metadata = read_complete(path)
    if metadata is None:
        raise ConfigError(Problem("no complete checkpoint", origin=str(path), expected="a step-N folder"))
    stored = {
        key: tuple(getattr(item, "size", ()))
        for key, item in metadata.state_dict_metadata.items()
        if key.partition(".")[0] not in TRAINING_STATE
    }
    wanted = _of_all_ranks({key: tuple(value.shape) for key, value in model_state.items()})
    if problems := differences(stored, wanted):
        raise ConfigError(
            Problem(
                f"the checkpoint isn't this model's: it {shortened(problems)}",
                origin=str(path),
                hint="give the model the arguments that the checkpoint was trained with",
            )
        )


def differences(stored: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """How the shapes of stored weights differ from those that a model wants, a clause each; empty where they don't."""
    return [
        *(f"lacks {key}" for key in wanted if key not in stored),
        *(f"has {key}, which the model lacks" for key in stored if key not in wanted),
        *(
            f"has {key} of shape {stored[key]}, the model's is {shape}"
            for key, shape in wanted.items()
            if key in stored and stored[key] != shape
        ),
    ]


def shortened(clauses: list[str], shown: int = 5) -> str:
    """The first few clauses, and how many more there are."""
    more = f" and {len(clauses) - shown} more" if len(clauses) > shown else ""
    return f"{'; '.join(clauses[:shown])}{more}"


def _of_all_ranks(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The whole model's tensors: under pipeline parallelism a rank has those of its stages alone."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return shapes
    gathered: list[dict[str, tuple[int, ...]]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, shapes)
    return {key: shape for one in gathered for key, shape in one.items()}


def save_failure(error: BaseException, path: Path) -> StageFailed:
    """What a failed save of ``path`` means to the user."""
    complete = [checkpoint for checkpoint in complete_checkpoints(path.parent) if checkpoint.path != path]
    causes = [failure[0] for failure in error.failures.values()] if isinstance(error, CheckpointException) else [error]
    full = no_room(path)
    reason = f"the disk is full ({full})" if full else f"{type(causes[0]).__name__}: {causes[0]}"
    last = f"the last complete checkpoint is {complete[0].path}" if complete else "there is no complete checkpoint"
    return StageFailed(
        f"{path}: the checkpoint could not be saved: {reason}; {last}. "
        f"{'Make room' if full else 'Mend that'}, and run the same command again: it goes on from there."
    )


def no_room(path: Path) -> str:
    """What the system says when another file like those in ``path`` is to be allocated; empty if there is room.

    The error of a failed save doesn't tell: torch's writer turns it into "unexpected pos".
    """
    largest = max((file.stat().st_size for file in path.glob("*")), default=0)
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            os.posix_fallocate(file.fileno(), 0, largest + PROBE_BYTES)
    except OSError as error:
        return str(error) if error.errno in NO_SPACE else ""
    return ""
