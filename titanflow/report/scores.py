"""The scores of a training's checkpoints, and its answers on the way, as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from titanflow.common.curves import Line, Panel
from titanflow.publish.card.score_table import metrics


def score_panels(records: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """A panel for each task and metric with two points or more: the value over the steps.

    ``records`` are those of ``evaluations.jsonl``; of a step that was scored twice the last counts.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    for record in records:
        for task, scores in record.get("scores", {}).items():
            for metric in metrics(scores):
                found.setdefault((task, metric), {})[record["step"]] = scores[metric]
    return [
        Panel(task, metric, [Line(metric, sorted(points.items()), marked=True)])
        for (task, metric), points in found.items()
        if len(points) > 1
    ]
