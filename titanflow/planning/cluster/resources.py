"""What a stage's job needs of a cluster: nodes, processes, and its part of the environment."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from titanflow.common.credentials import is_secret
from titanflow.planning.launch import OF_PYTHON
from titanflow.runs.contract import StageRun
from titanflow.runs.torchrun import PATIENCE

HANDED_ON = (
    *("PATH", "HOME", "USER", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("XDG_CACHE_HOME", "MPLCONFIGDIR"),
)
PREFIXES = (
    *("HF_", "WANDB_", "TRACKIO_", "MLFLOW_", "NCCL_", "TORCH_", "TORCHINDUCTOR_", "TRITON_", "GLOO_"),
    *("SSL_", "http", "HTTP", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
)
"""Environment variables that a job gets from the flow's environment, by name and by the beginning of their name."""
NO_FOLDER = 74
"""Exit status of a job that doesn't find the stage's folder: EX_IOERR of sysexits.h."""
END = "END_OF_THE_JOB"
RANK_PREFIX = "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"
"""torchrun's variable for the beginning of a rank's lines: by default each node calls its first rank 0."""


@dataclass(frozen=True)
class Resources:
    """What a job needs beside its command.

    ``attempt`` counts the jobs that the stage's folder had, from 1; ``gpus`` are those of each node, ``cores`` as well,
    None for what the cluster gives. ``variables`` stand in the job's script, for all to read; of ``handed_on`` only the
    names do. ``settings`` is the section of the kind, ``launcher.slurm``.
    """

    name: str
    attempt: int
    stage: str
    fingerprint: str
    folder: Path
    log: Path
    nodes: int
    processes: int
    gpus: int
    cores: int | None
    variables: dict[str, str]
    handed_on: dict[str, str]
    settings: dict[str, Any]


@dataclass(frozen=True)
class DryRun:
    """What a cluster says of a job that it isn't given yet: why it would refuse it, and what to know besides.

    ``unasked`` says why this machine can't ask it at all; empty if it can.
    """

    refused: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unasked: str = ""


def pasted(command: str, text: str) -> str:
    """A line and its input, as they can be pasted into a shell."""
    return f"{command} <<'{END}'\n{text}{END}"


def resources(run: StageRun, environment: Mapping[str, str], attempt: int = 1) -> Resources:
    """What a stage's job needs. Variables that may be secret are only handed on, by their names."""
    launcher = run.config["launcher"]
    settings = launcher[launcher["kind"]]
    wanted = (*HANDED_ON, *settings.get("export", ()))
    handed_on = {key: value for key, value in os.environ.items() if key in wanted or key.startswith(PREFIXES)}
    own = {RANK_PREFIX: "[${role_name}${rank}]: ", PATIENCE: str(settings["save_seconds"])}
    variables = {**OF_PYTHON, **own, **environment}
    # The machine that submits counts its own cores.
    if not launcher.get("omp_num_threads"):
        variables.pop("OMP_NUM_THREADS", None)
    secret = {key for key in variables if is_secret(key)}
    return Resources(
        name=job_name(run.stage, run.folder),
        attempt=attempt,
        stage=run.stage,
        fingerprint=run.fingerprint,
        folder=run.folder,
        log=run.folder / f"{run.stage}.log",
        nodes=launcher["nnodes"],
        processes=launcher["nproc_per_node"] or 1,
        gpus=launcher["nproc_per_node"] if launcher.get("device") == "cuda" else 0,
        # Data is prepared on cores alone; what a process of a GPU needs is the user's to say.
        cores=launcher["nproc_per_node"] if run.kind == "prepare" else None,
        variables={key: value for key, value in variables.items() if key not in secret},
        handed_on=handed_on | {key: variables[key] for key in secret},
        settings=settings,
    )


def job_name(stage: str, folder: Path) -> str:
    """The name of a stage's jobs, which no other stage's have: they are found by it if the id was never written."""
    # A name in Kubernetes has small letters and dashes.
    return f"titanflow-{stage.lower().replace('_', '-')}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
