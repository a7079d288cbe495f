"""Reads a stage's ``metrics.jsonl``: a JSON object a logged step."""

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
    """The records of some whole lines."""
    records = []
    for line in text.splitlines():
        # A line that a killed attempt left torn is no reason to end a training.
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


RECORD_BATCHES = "TITANFLOW_RECORD_BATCHES"
"""In the environment of a training: whether it leaves :data:`BATCHES_FILE`."""


BATCHES_FILE = "batches.jsonl"
"""Which rows each step was trained on: ``step`` and a digest."""
