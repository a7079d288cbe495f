"""Which weights a checkpoint holds, read from its metadata alone, and whether they are a model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from titanflow.common.errors import ConfigError, DataError, Problem
from titanflow.run.checkpoints import TRAINING_STATE, complete_folders

SHOWN = 5
"""How many differences a refusal names."""


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


def differences(stored: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """How stored shapes differ from those that a model wants, a clause each."""
    return [
        *(f"lacks {key}" for key in wanted if key not in stored),
        *(f"has {key}, which the model lacks" for key in stored if key not in wanted),
        *(
            f"has {key} of shape {stored[key]}, the model's is {shape}"
            for key, shape in wanted.items()
            if key in stored and stored[key] != shape
        ),
    ]


def refuse_other(
    clauses: list[str],
    path: Path,
    found: str = "the checkpoint isn't this model's",
    hint: str = "give the model the arguments that the checkpoint was trained with",
    key: str = "",
) -> None:
    """Refuses the weights at ``path`` if there are clauses, such as those of :func:`differences`.

    Raises:
        ConfigError: with ``found``, the first few clauses, and how many more there are.
    """
    if clauses:
        more = f" and {len(clauses) - SHOWN} more" if len(clauses) > SHOWN else ""
        raise ConfigError(Problem(f"{found}: it {'; '.join(clauses[:SHOWN])}{more}", key, str(path), hint=hint))
