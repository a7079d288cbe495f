"""The request for a rehearsal of evaluations, which tries their tasks before anything is trained.

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
    """The evaluations that are still to come, and the training stages, begun or not.

    ``evaluations`` has stages by their names, and the scores beside a training as ``pretrain.during``.
    """

    evaluations: dict[str, StageRun]
    trained: list[StageRun]

    def write(self, folder: Path) -> Path:
        """Writes ``rehearsal.json`` and returns its path."""
        path = folder / FILE
        write_text_atomically(path, self.model_dump_json(indent=2) + "\n")
        return path

    def is_done(self, folder: Path) -> bool:
        """Whether a rehearsal of the same evaluations, and maybe of others, finished in that folder."""
        try:
            before = Rehearsal.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        asked, tried = self._fingerprints(), before._fingerprints()
        return (folder / RESULT_FILE).is_file() and asked.items() <= tried.items()

    def _fingerprints(self) -> dict[str, str]:
        return {name: run.fingerprint for name, run in self.evaluations.items()}
