"""``metrics.jsonl``: one JSON object for each logged step, without repeats after a resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from titanflow.common.errors import StageFailed
from titanflow.common.files import write_text_atomically
from titanflow.runs.metrics import read_metrics


class MetricsFile:
    """Appends and flushes record by record, so that readers see whole lines."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record.

        Raises:
            ValueError: a number that JSON doesn't have (NaN, infinity).
            StageFailed: the file can't be written, as on a full disk.
        """
        line = json.dumps(record, allow_nan=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            message = f"{self.path}: can't be written: {error}. Mend that, and run the same command again"
            raise StageFailed(message) from error

    def records(self) -> list[dict[str, Any]]:
        """All complete records, oldest first; skips a line that a killed process left half-written."""
        return read_metrics(self.path)

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Removes all other records from the file; returns those kept."""
        kept = [record for record in self.records() if wanted(record)]
        if self.path.exists():
            write_text_atomically(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        return kept
