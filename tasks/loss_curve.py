"""The loss curve as a picture that a browser shows on a light and on a dark page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

MAX_POINTS = 500
"""More points than pixels show nothing more, and an artifact lies in Prefect's database."""
GREY = "#848d97"
"""Readable on white and on black."""
TRAIN_COLOR = "#3b82f6"
VALIDATION_COLOR = "#f97316"


def loss_curve(records: Sequence[dict[str, Any]], title: str) -> str | None:
    """A ``data:`` URI of an SVG with training and validation loss over steps; None without two points."""
    train = _points(records, "loss")
    if len(train) < 2:
        return None
    # Half a second, and only at the end of a training stage.
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text: small, sharp and searchable.
    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 11, "text.color": GREY}):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*_thinned(train), strict=True), color=TRAIN_COLOR, linewidth=1.5, label="train")
        if validation := _points(records, "validation_loss"):
            axes.plot(*zip(*validation, strict=True), color=VALIDATION_COLOR, marker="o", ms=4, label="validation")
            axes.legend(frameon=False)
        axes.set(xlabel="step", ylabel="loss, nats per token")
        axes.set_title(title, color=GREY)
        axes.tick_params(colors=GREY)
        axes.xaxis.label.set_color(GREY)
        axes.yaxis.label.set_color(GREY)
        axes.grid(color=GREY, alpha=0.25)
        axes.spines[:].set_visible(False)
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode()


def _points(records: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(record["step"], record[key]) for record in records if "step" in record and key in record]


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    every = -(-len(points) // MAX_POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]
