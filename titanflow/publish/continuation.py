"""Whether a copy of a model still generates what the evaluated model generated."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from titanflow.common.credentials import redact
from titanflow.files.own_files import read_mapping
from titanflow.publish.bundle import LINEAGE
from titanflow.runs.errors import ending

log = logging.getLogger(__name__)

VERIFY = (sys.executable, "-m", "titan.inference.verify")
"""Compares what a folder's model generates with its ``titanflow.json``; a process of its own, as it needs torch."""

COMPUTES_OTHERWISE = (
    "The bytes are the evaluated ones, so this machine or its libraries compute something else: evaluate again here, "
    "or publish where it was evaluated."
)
LONGEST_QUOTE = 2000
"""Characters of the verification's output that are passed on."""


def wrong_continuation(folder: Path) -> str:
    """Why a published folder fails its verification; empty if it passes.

    The verification loads the folder and compares its greedy continuation with the recorded one. A model that was
    not evaluated has none to compare with.
    """
    if "greedy" not in read_mapping(folder / LINEAGE, "publish again"):
        log.info("no evaluation recorded a greedy continuation: the model isn't loaded again")
        return ""
    done = subprocess.run([*VERIFY, str(folder)], env=without_token(), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        log.info("loaded again: the same greedy continuation")
        return ""
    return redact((done.stdout + done.stderr).strip()[-LONGEST_QUOTE:]) or f"it {ending(done.returncode)}"


def without_token() -> dict[str, str]:
    """The environment of a process that reads a folder and needs no Hub."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
    return kept | {"HF_HUB_OFFLINE": "1"}
