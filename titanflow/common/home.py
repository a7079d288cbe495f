"""Paths as a person writes them, with ``~`` for a home folder."""

from __future__ import annotations

from pathlib import Path


def expanded(named: str | Path) -> Path:
    """A path with its ``~`` or ``~user`` expanded; as it stands where there is no such user."""
    try:
        return Path(named).expanduser()
    except RuntimeError:
        return Path(named)
