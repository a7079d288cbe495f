"""Reads a stage's ``metrics.jsonl``, which has a JSON object for each logged step."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any


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
