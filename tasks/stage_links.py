"""Where else a stage can be seen: its W&B run, and what it published."""

from __future__ import annotations

from pathlib import Path

from titanflow.stage import PublishResult, StageResult
from titanflow.wandb_record import read_wandb_record


def links(folder: Path, result: StageResult) -> dict[str, tuple[str, str]]:
    """What is linked → (text, address): only addresses that a browser opens, so nothing of an offline run."""
    record = read_wandb_record(folder)
    found = {"wandb": ("W&B run", record.url if record is not None else "")}
    if isinstance(result, PublishResult):
        if result.status == "published":
            found["published"] = (f"Published: {result.repo_id} {result.tag}".rstrip(), result.location)
        found["pull-request"] = ("Pull request", result.pull_request)
    return {what: link for what, link in found.items() if link[1].startswith(("https://", "http://"))}
