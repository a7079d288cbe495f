"""The loss curve as the picture of a Prefect artifact."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from titanflow.curves import draw, loss_panel


def loss_curve(records: Sequence[dict[str, Any]], title: str) -> str | None:
    """A ``data:`` URI of an SVG with training and validation loss over steps; None without two points."""
    panel = loss_panel(records, title)
    if panel is None:
        return None
    return "data:image/svg+xml;base64," + base64.b64encode(draw([panel])).decode()
