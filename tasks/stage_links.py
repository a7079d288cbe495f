"""Where else a stage can be seen: its W&B run, and what it published."""

from __future__ import annotations

import json
from pathlib import Path

from titanflow.stage import PublishResult, StageResult

WANDB_FILE = "wandb.json"


def links(folder: Path, result: StageResult) -> dict[str, tuple[str, str]]:
    """What is linked → (text, address): only addresses that a browser opens, so nothing of an offline run."""
    found = {"wandb": ("W&B run", _wandb_url(folder))}
    if isinstance(result, PublishResult):
        found["published"] = (f"Published: {result.repo_id} {result.tag}".rstrip(), result.location)
        found["pull-request"] = ("Pull request", result.pull_request)
    return {what: link for what, link in found.items() if link[1].startswith(("https://", "http://"))}


def _wandb_url(folder: Path) -> str:
    try:
        return str(json.loads((folder / WANDB_FILE).read_text()).get("url") or "")
    except (OSError, ValueError):
        return ""
