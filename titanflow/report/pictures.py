"""A stage's curves as SVG inside the page, in the page's colours, light or dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from titanflow.common.curves import GREY, TRAIN_COLOUR, VALIDATION_COLOUR, Line, Panel, draw, loss_panel, points
from titanflow.report.scores import score_panels

COLOURS = {TRAIN_COLOUR: "var(--accent)", VALIDATION_COLOUR: "var(--second)", GREY: "var(--muted)"}
"""The colours that a picture is drawn with, and the page's own that replace them."""
SMALLER = {"learning_rate": "learning rate", "tokens_per_second": "tokens a second", "grad_norm": "gradient norm"}
"""The metrics shown for each step beside the loss, and their titles."""
SIZES = ((5.8, 3.8), (3.9, 2.9))
"""Inches of the loss's picture on a wide page and on a phone, so that its labels look equally large on both."""


def loss_svgs(records: Sequence[dict[str, Any]]) -> list[str]:
    """Training and validation loss in each of the sizes; none without two points."""
    panel = loss_panel(records, "")
    return [inline(draw([panel], width=width, height=height)) for width, height in SIZES] if panel else []


def smaller_svgs(records: Sequence[dict[str, Any]]) -> list[str]:
    """A small picture of the learning rate, throughput and gradient norm each, if recorded twice."""
    return [
        inline(draw([Panel(title, "", [Line(title, found)], xlabel="")], width=3.2, height=1.5))
        for key, title in SMALLER.items()
        if len(found := points(records, key)) > 1
    ]


def score_svgs(evaluations: Sequence[dict[str, Any]]) -> list[str]:
    """A small picture of each score of a training's checkpoints, if there are two points of it."""
    return [
        inline(draw([replace(panel, title=f"{panel.title} {panel.ylabel}", ylabel="")], width=3.2, height=1.5))
        for panel in score_panels(evaluations)
    ]


def inline(svg: bytes) -> str:
    """A picture as an HTML element: in the page's colours, without a header or names that another picture may have."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    opening, rest = text.split(">", 1)
    opening = re.sub(r'\s(?:xmlns(?::xlink)?|width|height|version)="[^"]*"', "", opening)
    text = f"{opening}>{rest}"
    # Clip paths and markers are named after their content, so equal names mean equal things.
    text = re.sub(r'\sid="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    for drawn, styled in COLOURS.items():
        text = text.replace(drawn, styled)
    return text.replace("<svg", '<svg class="plot" role="img"', 1).strip()
