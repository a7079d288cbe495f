"""Finds the model that a run published by what people name in its place: the run's folder, or its experiment."""

from __future__ import annotations

from pathlib import Path

MODEL = Path("*", "model")
"""A published model below a run's folder: in that of a publication."""
WORKSPACE = Path("runs")
"""The workspace, unless an experiment has its own."""


def model_hint(named: str) -> str:
    """Where the newest model of a run, or of an experiment's runs, lies; empty if ``named`` is neither."""
    places = [Path(named), WORKSPACE / Path(named).name.removesuffix(".yaml")] if named else []
    found = [model for place in places for pattern in (MODEL, Path("*") / MODEL) for model in place.glob(str(pattern))]
    return f"its published model is {max(found, key=lambda one: one.stat().st_mtime)}" if found else ""
