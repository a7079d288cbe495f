"""The scores of a training's checkpoints, and its answers on the way, as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from titanflow.common.curves import Line, Panel
from titanflow.publish.card.score_table import metrics

SHOWN_STEPS = 4
"""How many validations the report shows the answers of."""


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


@dataclass(frozen=True)
class Answers:
    """A training's answers on the way: the shown ``steps``, and by prompt the answer at each; empty where it has none.

    ``more`` counts the steps between the first and the last that aren't shown.
    """

    steps: list[int]
    rows: dict[str, list[str]]
    more: int


def answers(samples: Sequence[Mapping[str, Any]]) -> Answers | None:
    """The answers of ``samples.jsonl`` at a few of its steps, the first and the last among them; None without any."""
    given: dict[str, dict[int, str]] = {}
    for one in samples:
        given.setdefault(one["prompt"], {})[one["step"]] = one["answer"]
    steps = sorted({one["step"] for one in samples})
    if not steps:
        return None
    last = len(steps) - 1
    places = sorted({round(place * last / (SHOWN_STEPS - 1)) for place in range(SHOWN_STEPS)})
    shown = [steps[place] for place in places]
    rows = {prompt: [by_step.get(step, "") for step in shown] for prompt, by_step in given.items()}
    return Answers(shown, rows, len(steps) - len(shown))
