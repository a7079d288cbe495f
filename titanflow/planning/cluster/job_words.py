"""A stage's job in a few words: what a plan's reader is told of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

VARIABLES = {
    "partition": "SBATCH_PARTITION",
    "account": "SBATCH_ACCOUNT",
    "qos": "SBATCH_QOS",
    "time": "SBATCH_TIMELIMIT",
    "mem": "SBATCH_MEM_PER_NODE",
    "gres": "SBATCH_GRES",
    "constraint": "SBATCH_CONSTRAINT",
    "container": "",
}
"""The settings that are shown of a job of Slurm, each with the variable that sbatch takes where nothing is set."""
KUBERNETES = ("namespace", "queue", "priority_class", "image", "active_deadline_seconds", "resources", "node_selector")


def job_words(launcher: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> str:
    """Where a job runs, and what it asks for: ``a job of slurm, 2 nodes of 8 processes: partition gpu``."""
    kind = launcher["kind"]
    asked = ", ".join(_of_slurm(launcher, environ) if kind == "slurm" else _of_kubernetes(launcher["kubernetes"]))
    return f"a job of {kind}, {_nodes(launcher)}" + (f": {asked}" if asked else "")


def _nodes(launcher: Mapping[str, Any]) -> str:
    machines, processes = launcher["nnodes"], launcher["nproc_per_node"]
    found = f"{machines} node{'s' if machines > 1 else ''}"
    if processes:
        found += f" of {processes} process{'es' if processes > 1 else ''}"
    # A pod sees no GPU that it doesn't ask for.
    return found + (" without GPUs" if launcher["kind"] == "kubernetes" and launcher["device"] != "cuda" else "")


def _of_slurm(launcher: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    asked = dict(launcher["slurm"])
    if launcher.get("device") == "cuda":
        asked["gres"] = asked["gres"] or f"gpu:{launcher['nproc_per_node']}"
    for key, variable in VARIABLES.items():
        if asked[key] is not None:
            yield f"{key} {asked[key]}"
        elif environ.get(variable):
            yield f"{key} {environ[variable]} ({variable})"
    yield from asked["extra"]


def _of_kubernetes(asked: Mapping[str, Any]) -> Iterator[str]:
    for key in KUBERNETES:
        if isinstance(asked[key], dict):
            yield from (f"{name} {value}" for name, value in asked[key].items())
        elif asked[key] is not None:
            yield f"{key} {asked[key]}"
