"""Where a stage's checkpoints lie, and which of them are complete; read without torch."""

from __future__ import annotations

import re
from pathlib import Path

METADATA = ".metadata"
"""What torch's distributed checkpoint writes last: a folder without it is the rest of an interrupted save."""


def step_folders(folder: Path) -> dict[int, Path]:
    """The ``step-N`` folders in ``folder`` by step, newest first, complete or not."""
    found = {int(match[1]): path for path in folder.glob("step-*") if (match := re.fullmatch(r"step-(\d+)", path.name))}
    return dict(sorted(found.items(), reverse=True))


def complete_folders(folder: Path) -> dict[int, Path]:
    """Those of :func:`step_folders` whose save came to its end."""
    return {step: path for step, path in step_folders(folder).items() if (path / METADATA).is_file()}


def newest_step(stage_folder: Path) -> int | None:
    """The step of the newest complete checkpoint below a stage's folder; None where there is none."""
    return next(iter(complete_folders(stage_folder / "checkpoint")), None)
