"""Curves over steps as an SVG: the loss on the card and in Prefect, and what else a report shows.

The same values give the same bytes. Text stays text: small, sharp and searchable; nothing is filled behind it, so that
the page shows through.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_POINTS = 500
"""More points than pixels show nothing more, and an artifact lies in Prefect's database."""
GREY = "#848d97"
"""Readable on white and on black."""
TRAIN_COLOUR = "#3b82f6"
VALIDATION_COLOUR = "#f97316"

LEAST_PLAIN, MOST_PLAIN = 1e-3, 1e5
"""Between these an axis's largest value is written with all its zeros."""
UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One curve; with ``marked`` each of its points is seen."""

    label: str
    points: Points
    colour: str = TRAIN_COLOUR
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """Axes of their own, with the lines that share them."""

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
    # Half a second, and only where a picture is made.
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
    # A title may come from a config: a dollar in it is a dollar.
    axes.set_title(panel.title, color=GREY, fontsize=11, parse_math=False)
    axes.tick_params(colors=GREY)
    # Steps are whole.
    axes.xaxis.get_major_locator().set_params(integer=True)
    for axis in (axes.xaxis, axes.yaxis):
        _write_whole(axis)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)
    axes.grid(color=GREY, alpha=0.25)
    axes.spines[:].set_visible(False)


def _write_whole(axis: Any) -> None:
    """Writes each value at an axis whole: not as what is to be added to, or multiplied by, a number in the corner."""
    largest = max(map(abs, axis.get_view_interval()))
    if MOST_PLAIN > largest >= LEAST_PLAIN:
        axis.get_major_formatter().set_useOffset(False)
    else:
        axis.set_major_formatter(lambda value, _: tick(value))


def tick(value: float) -> str:
    """A value at an axis of very large or very small ones: 1.5M, 3e-5."""
    unit, name = next(((unit, name) for unit, name in UNITS if abs(value) >= unit), (1, ""))
    # The digits that a float has: 0.1 + 0.2 is 0.3.
    return f"{value / unit:.12g}".replace("e-0", "e-") + name
