"""What an evaluation's rehearsal is asked for: it tries the tasks before anything is trained.

The plan knows a task's files, and not what lm-eval makes of them. So a process of its own asks each task a few of its
items with made-up answers, and looks for the items in what is about to be trained on, where that ends the evaluation.
"""

from __future__ import annotations

from pathlib import Path

from titanflow.common.files import write_text_atomically
from titanflow.run.contract import RESULT_FILE, StageRun, Strict

FOLDER = "rehearsal"
"""Beside the stages' folders in a run's."""
FILE = "rehearsal.json"
MODULE = "titan.evaluate.rehearse"


class Rehearsal(Strict):
    """An ``evaluate`` stage that is still to come, and the training stages, of which some have not begun either."""

    evaluate: StageRun
    trained: list[StageRun]

    def write(self, folder: Path) -> Path:
        """Writes ``rehearsal.json`` and returns its path."""
        path = folder / FILE
        write_text_atomically(path, self.model_dump_json(indent=2) + "\n")
        return path

    def is_done(self, folder: Path) -> bool:
        """Whether the same evaluation was rehearsed in that folder to its end."""
        try:
            before = Rehearsal.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return (folder / RESULT_FILE).is_file() and before.evaluate.fingerprint == self.evaluate.fingerprint
