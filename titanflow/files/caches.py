"""Folders below the home folder that programs write into, and where those are when it can't be written."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """This project's own folder in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "titanflow")
