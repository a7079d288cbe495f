"""Reads a stage's ``metrics.jsonl``, which has a JSON object for each logged step, and the files of that kind."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

EVALUATIONS_FILE = "evaluations.jsonl"
"""Scores of a training's checkpoints: ``step``, ``tasks``, ``limit`` and ``part`` as asked, ``scores[task][metric]``,
``samples``, ``higher_is_better`` and ``seconds``; of a checkpoint that couldn't be scored ``failed``, the reason."""
SAMPLES_FILE = "samples.jsonl"
"""Answers at each validation: ``step``, ``prompt`` and ``answer``."""


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a line to a file that one process alone writes; a torn one that a kill left stays a line of its own.

    Raises:
        OSError: the file can't be written, as on a full disk.
        ValueError: a number that JSON doesn't have (NaN, infinity).
    """
    line = json.dumps(record, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    with path.open("ab+") as file:
        if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            line = b"\n" + line
        file.write(line)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete records of a ``metrics.jsonl``, oldest first; none if there is no file."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return parse_metrics(text[: text.rfind(b"\n") + 1])


def parse_metrics(text: bytes) -> list[dict[str, Any]]:
    """The records of whole lines; a torn one is skipped."""
    records = []
    for line in text.splitlines():
        # A killed attempt may leave a torn line, which must not end a training.
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


RECORD_BATCHES = "TITANFLOW_RECORD_BATCHES"
"""Environment variable of a training: whether it writes :data:`BATCHES_FILE`."""
BATCHES_FILE = "batches.jsonl"
"""The rows of each training step: ``step`` and a digest of them."""
