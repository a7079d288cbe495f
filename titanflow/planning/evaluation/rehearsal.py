"""The request for an evaluation's rehearsal, which tries the tasks before anything is trained.

The plan knows a task's files, but not what lm-eval makes of them. So a process asks each task a few of its items with
made-up answers. If items in the training data would end the evaluation, it looks for them, too.
"""

from __future__ import annotations

from pathlib import Path

from titanflow.common.files import write_text_atomically
from titanflow.runs.contract import RESULT_FILE, StageRun, Strict

FOLDER = "rehearsal"
"""Lies beside the stages' folders."""
FILE = "rehearsal.json"
MODULE = "titan.evaluate.rehearse"


class Rehearsal(Strict):
    """An ``evaluate`` stage that is still to come, and the training stages, begun or not."""

    evaluate: StageRun
    trained: list[StageRun]

    def write(self, folder: Path) -> Path:
        """Writes ``rehearsal.json`` and returns its path."""
        path = folder / FILE
        write_text_atomically(path, self.model_dump_json(indent=2) + "\n")
        return path

    def is_done(self, folder: Path) -> bool:
        """Whether a rehearsal of the same evaluation finished in that folder."""
        try:
            before = Rehearsal.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return (folder / RESULT_FILE).is_file() and before.evaluate.fingerprint == self.evaluate.fingerprint
