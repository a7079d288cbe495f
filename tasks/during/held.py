"""Checkpoints held aside by hard links, so that a training's retention can't remove one while it is read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from titanflow.runs.checkpoints import METADATA, flaw, step_folders

BEGUN = "begun-"
"""What a checkpoint's folder is called until all of its files are held."""


def hold(checkpoint: Path, folder: Path) -> bool:
    """Holds a complete ``step-N`` in ``folder``; False if it was removed meanwhile.

    A file system without hard links gets copies.
    """
    begun, held = folder / f"{BEGUN}{checkpoint.name}", folder / checkpoint.name
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    try:
        # The metadata comes last, as in a save: without it the folder is no checkpoint.
        for file in sorted(checkpoint.iterdir(), key=lambda file: file.name == METADATA):
            _link(file, begun / file.name)
    except FileNotFoundError:
        shutil.rmtree(begun, ignore_errors=True)
        return False
    if flaw(begun):
        shutil.rmtree(begun, ignore_errors=True)
        return False
    begun.rename(held)
    return True


def _link(file: Path, link: Path) -> None:
    try:
        os.link(file, link)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(file, link)


def held_steps(folder: Path) -> dict[int, Path]:
    """The checkpoints that are held in ``folder``, by step, oldest first; what a kill left half held is removed."""
    for left in folder.glob(f"{BEGUN}*"):
        shutil.rmtree(left, ignore_errors=True)
    return dict(sorted(step_folders(folder).items()))
