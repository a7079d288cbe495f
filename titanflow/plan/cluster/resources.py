"""What a stage's job needs of a cluster: nodes, processes, and its part of the environment."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titanflow.plan.launch import OF_PYTHON, is_secret
from titanflow.run.contract import StageRun

HANDED_ON = ("PATH", "HOME", "USER", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX")
PREFIXES = ("HF_", "WANDB_", "NCCL_", "TORCH_", "GLOO_", "SSL_", "http", "HTTP", "no_proxy", "NO_PROXY")
"""Environment variables that a job gets from the flow's environment, by name and by the beginning of their name."""
RANK_PREFIX = "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"
"""torchrun's variable for the beginning of a rank's lines: by default each node calls its first rank 0."""


@dataclass(frozen=True)
class Resources:
    """What a job needs beside its command.

    ``variables`` stand in the job's script, for all to read; of ``handed_on`` only the names do. ``settings`` is the
    section of the kind, ``launcher.slurm``; ``cores`` are those of each node, None for what the cluster gives.
    """

    name: str
    folder: Path
    log: Path
    nodes: int
    processes: int
    cores: int | None
    variables: dict[str, str]
    handed_on: dict[str, str]
    settings: dict[str, Any]


def resources(run: StageRun, environment: Mapping[str, str]) -> Resources:
    """What a stage's job needs. Variables that may be secret are only handed on, by their names."""
    launcher = run.config["launcher"]
    settings = dict(launcher[launcher["kind"]])
    if launcher.get("device") == "cuda":
        settings["gres"] = settings["gres"] or f"gpu:{launcher['nproc_per_node']}"
    wanted = (*HANDED_ON, *settings["export"])
    handed_on = {key: value for key, value in os.environ.items() if key in wanted or key.startswith(PREFIXES)}
    variables = {**OF_PYTHON, RANK_PREFIX: "[${role_name}${rank}]: ", **environment}
    # The machine that submits counts its own cores.
    if not launcher.get("omp_num_threads"):
        variables.pop("OMP_NUM_THREADS", None)
    secret = {key for key in variables if is_secret(key)}
    return Resources(
        name=job_name(run.stage, run.folder),
        folder=run.folder,
        log=run.folder / f"{run.stage}.log",
        nodes=launcher["nnodes"],
        processes=launcher["nproc_per_node"] or 1,
        # Data is prepared on cores alone; what a process of a GPU needs is the user's to say.
        cores=launcher["nproc_per_node"] if run.stage == "prepare" else None,
        variables={key: value for key, value in variables.items() if key not in secret},
        handed_on=handed_on | {key: variables[key] for key in secret},
        settings=settings,
    )


def job_name(stage: str, folder: Path) -> str:
    """The name of a stage's jobs, which no other stage's have: they are found by it if the id was never written."""
    return f"titanflow-{stage}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
