"""A run's folder that was moved or copied: what its files say of places is told from where they lie now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def told_from(values: Any, written: Path, now: Path) -> Any:
    """What a stage's file holds, with each path below its run, or its workspace, as it is now.

    Of the workspace only what is there is told anew: a run may have been copied alone, and its data stayed.

    Args:
        values: mappings, lists and scalars.
        written: the stage's folder as the file has it.
        now: the folder in which the file lies.
    """
    if written == now:
        return values
    moves = [(str(written), str(now), True)]
    # A stage that was made again lies in superseded/ under another name, and the rest of its run where it was.
    if written.name == now.name and len(written.parents) > 2 and len(now.parents) > 2:
        # A stage's folder is workspace/experiment/run/stage.
        moves += [
            (str(written.parents[0]), str(now.parents[0]), True),
            (str(written.parents[2]), str(now.parents[2]), False),
        ]
    return _told(values, moves)


def _told(value: Any, moves: list[tuple[str, str, bool]]) -> Any:
    if isinstance(value, dict):
        return {_told(key, moves): _told(item, moves) for key, item in value.items()}
    if isinstance(value, list):
        return [_told(item, moves) for item in value]
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    for old, new, is_certain in moves:
        if value == old or value.startswith(f"{old}/"):
            place = new + value.removeprefix(old)
            return place if is_certain or os.path.lexists(place) else value
    return value
