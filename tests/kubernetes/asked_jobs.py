"""What a test asks a cluster for: a job of a stage, whose program is a line of shell."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from titanflow.config.keys.launcher import Launcher
from titanflow.planning.cluster.resources import Resources, resources
from titanflow.runs.contract import StageRun

SAVES = "trap 'echo saved; exit 143' TERM; echo ready; while :; do sleep 0.1; done"
"""A program that works until it is told to end, and then saves."""


def asked(folder: Path, nodes: int = 1, attempt: int = 1, fingerprint: str = "f", **settings: Any) -> Resources:
    launcher = asdict(Launcher()) | {"kind": "kubernetes", "nnodes": nodes}
    launcher["kubernetes"] |= {"image": "titanflow", "volumes": {str(folder): "data"}} | settings
    run = StageRun(
        stage="pretrain",
        experiment="e",
        run="r",
        folder=folder,
        fingerprint=fingerprint,
        config={"launcher": launcher},
    )
    return resources(run, {}, attempt)
