"""Which weights a checkpoint holds, read from its metadata alone."""

from __future__ import annotations

from pathlib import Path

from titanflow.common.errors import DataError, Problem
from titanflow.run.checkpoints import TRAINING_STATE, complete_folders


def newest_checkpoint(folder: Path) -> Path:
    """The newest complete checkpoint of a ``checkpoint/`` folder: ``step-N`` with its ``.metadata``.

    Raises:
        DataError: there is none.
    """
    steps = complete_folders(folder)
    if not steps:
        raise DataError(Problem("no complete checkpoint", origin=str(folder), expected="step-N with a .metadata"))
    return next(iter(steps.values()))


def stored_model(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of what a checkpoint holds of the model, by key."""
    from torch.distributed import checkpoint as dcp

    metadata = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    return {
        key: tuple(getattr(item, "size", ()))
        for key, item in metadata.items()
        if key.split(".")[0] not in TRAINING_STATE
    }
