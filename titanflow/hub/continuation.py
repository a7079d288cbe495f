"""Whether a copy of a model still says what the evaluated model said."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from titanflow.hub.bundle import LINEAGE
from titanflow.hub.endpoint import redact

log = logging.getLogger(__name__)

VERIFY = (sys.executable, "-m", "titan.verify")
"""Loads a folder and compares what it generates with its ``titanflow.json``; a process of its own: it needs torch."""

LONGEST_QUOTE = 2000
"""Characters of that process's output that are passed on."""


def wrong_continuation(folder: Path) -> str:
    """What is wrong with the greedy continuation of a published folder; empty where it is the one in its lineage.

    A model without an evaluation has no continuation to compare with.
    """
    if "greedy" not in json.loads((folder / LINEAGE).read_text()):
        log.info("no evaluation recorded a greedy continuation: the model isn't loaded again")
        return ""
    done = subprocess.run([*VERIFY, str(folder)], env=without_token(), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        log.info("loaded again: the same greedy continuation")
        return ""
    return f"can't be verified:\n{redact((done.stdout + done.stderr).strip()[-LONGEST_QUOTE:])}"


def without_token() -> dict[str, str]:
    """The environment of a process that reads a folder and has no business with a Hub."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    return kept | {"HF_HUB_OFFLINE": "1"}
