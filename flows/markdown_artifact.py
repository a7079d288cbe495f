"""Markdown that a flow run leaves in Prefect's UI, which costs no run where it can't be reached."""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact


def leave_markdown(text: str, key: str, description: str) -> None:
    """Makes a markdown artifact; one that can't be made is a warning."""
    try:
        create_markdown_artifact(text, key=key, description=description)
    # Whatever the API, its client or the network raise: no artifact is worth a run.
    except Exception as error:
        get_run_logger().warning("the artifact %r can't be made (%s)", key, error)
