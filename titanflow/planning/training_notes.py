"""What a plan says of a training beside its state: what it will do that its name doesn't tell."""

from __future__ import annotations

from collections.abc import Iterator

from titanflow.config.mixture import phases_note
from titanflow.runs.contract import StageRun


def training_notes(run: StageRun) -> Iterator[str]:
    """The steps of a mixture's phases, and that the stage keeps the mean of its weights; nothing of other stages."""
    if phases := phases_note(run.config):
        yield phases
    decay = (run.config.get("training") or {}).get("ema")
    if decay is not None:
        yield f"validates and exports the moving mean of its weights (ema {decay})"
