"""How Prefect shows the scores of a training's checkpoints: a line each, and at the end a table and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.ui.artifacts import data_uri
from tasks.ui.results import Row
from titanflow.common.curves import draw
from titanflow.publish.card.score_table import metrics
from titanflow.report.scores import score_panels

MOST_CURVES = 4
"""Curves side by side, as wide as an artifact."""


def told(record: Mapping[str, Any]) -> str:
    """The scores of a step in a line, as ``stdlib_kind acc 0.612 on 200 items of dev (12.3 s)``."""
    parts = [
        f"{task} {' '.join(f'{metric} {scores[metric]:.3g}' for metric in metrics(scores))}{_items(record, task)}"
        for task, scores in record["scores"].items()
    ]
    return f"{', '.join(parts)} ({record['seconds']:.1f} s)"


def _items(record: Mapping[str, Any], task: str) -> str:
    number, part = record["samples"].get(task), record["part"]
    return f" on {number} items{f' of {part}' if part else ''}" if number else ""


def score_rows(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row a step and task; a step that couldn't be scored has the reason."""
    rows = []
    for record in records:
        if "failed" in record:
            rows.append({"step": record["step"], "task": "", "score": f"not scored: {record['failed']}"})
        for task, scores in record.get("scores", {}).items():
            found = ", ".join(f"{metric} {scores[metric]:.4g}" for metric in metrics(scores))
            rows.append({"step": record["step"], "task": task, "score": found})
    return rows


def score_curves(records: Sequence[Mapping[str, Any]]) -> str | None:
    """A ``data:`` URI of an SVG with the scores over the steps; None for fewer than two points."""
    panels = score_panels(records)[:MOST_CURVES]
    return data_uri(draw(panels, width=4.0 * len(panels), height=3.0)) if panels else None
