"""Curves over steps as an SVG: the loss on the card and in Prefect, and other curves of a report.

The same values give the same bytes. Text stays text: small, sharp and searchable. The background is transparent.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_POINTS = 500
"""More points than pixels show nothing more, and Prefect's database stores the artifact."""
GREY = "#848d97"
"""Readable on white and on black."""
TRAIN_COLOUR = "#3b82f6"
VALIDATION_COLOUR = "#f97316"

LEAST_PLAIN, MOST_PLAIN = 1e-3, 1e5
"""An axis whose largest value lies between these is labelled with plain decimals."""
UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One curve; ``marked`` puts a dot on each point."""

    label: str
    points: Points
    colour: str = TRAIN_COLOUR
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """A pair of axes and the lines on it."""

    title: str
    ylabel: str
    lines: Sequence[Line]
    xlabel: str = "step"


def loss_panel(records: Sequence[dict[str, Any]], title: str) -> Panel | None:
    """Training and validation loss of a ``metrics.jsonl`` over its steps; None without two points."""
    train = points(records, "loss")
    if len(train) < 2:
        return None
    lines = [Line("train", train)]
    if validation := points(records, "validation_loss"):
        lines.append(Line("validation", validation, VALIDATION_COLOUR, marked=True))
    return Panel(title, "loss, nats per token", lines)


def points(records: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """Step and value of the records that have both."""
    values = [(record.get("step"), record.get(key)) for record in records]
    return [(step, value) for step, value in values if step is not None and value is not None]


def thinned(values: Points) -> Points:
    """At most about ``MAX_POINTS`` of the points, the first and the last among them."""
    every = -(-len(values) // MAX_POINTS)
    return values if every <= 1 else [*values[:-1:every], values[-1]]


def draw(panels: Sequence[Panel], width: float = 8.0, height: float = 4.0) -> bytes:
    """The panels side by side, ``width`` × ``height`` inches in all."""
    # Imported here because it takes half a second, which only a picture is worth.
    import matplotlib
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": "titanflow", "font.size": 10, "text.color": GREY}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, panel)
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return svg.getvalue()


def _draw_panel(axes: Any, panel: Panel) -> None:
    for line in panel.lines:
        marker = {"marker": "o", "ms": 4} if line.marked else {}
        axes.plot(
            *zip(*thinned(line.points), strict=True), color=line.colour, linewidth=1.5, label=line.label, **marker
        )
    if len(panel.lines) > 1:
        axes.legend(frameon=False, labelcolor=GREY)
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    # A title may come from a config, whose dollar signs start no formula.
    axes.set_title(panel.title, color=GREY, fontsize=11, parse_math=False)
    axes.tick_params(colors=GREY)
    # Steps are whole.
    axes.xaxis.get_major_locator().set_params(integer=True)
    for axis in (axes.xaxis, axes.yaxis):
        _write_whole(axis)
        axis.label.set_color(GREY)
    axes.grid(color=GREY, alpha=0.25)
    axes.spines[:].set_visible(False)


def _write_whole(axis: Any) -> None:
    """Labels an axis with whole values, without matplotlib's offset or factor in the corner."""
    largest = max(map(abs, axis.get_view_interval()))
    if MOST_PLAIN > largest >= LEAST_PLAIN:
        axis.get_major_formatter().set_useOffset(False)
    else:
        axis.set_major_formatter(lambda value, _: tick(value))


def tick(value: float) -> str:
    """The label of a very large or very small value on an axis: 1.5M, 3e-5."""
    unit, name = next(((unit, name) for unit, name in UNITS if abs(value) >= unit), (1, ""))
    # A float has so many reliable digits: 0.1 + 0.2 is 0.3.
    return f"{value / unit:.12g}".replace("e-0", "e-") + name
