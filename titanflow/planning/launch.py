"""The command and the environment of a stage's process, which its log shows so that it can be run again by hand."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from titanflow.common.credentials import is_secret
from titanflow.config.experiment import Experiment
from titanflow.files.cgroups import usable_cores
from titanflow.files.json_source import GIVEN
from titanflow.files.yaml_source import display
from titanflow.runs import torchrun
from titanflow.runs.contract import RUN_FILE, StageKind, StageRun

MODULES: dict[StageKind, str] = {
    "prepare": "titanflow.data.prepare",
    "pretrain": "titan.train.train",
    "sft": "titan.train.train",
    "prefer": "titan.train.train",
    "evaluate": "titan.evaluate.evaluate",
    "publish": "titanflow.publish.publish",
}
STAGE_FOLDER = "TITANFLOW_STAGE_FOLDER"
"""Environment variable with the folder that a process writes into: identifies a stage's processes."""
OF_PYTHON = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}
"""For each process: logs are written at once and in UTF-8, and nothing is imported from its folder."""


def command(run: StageRun) -> list[str]:
    program = ["-m", MODULES[run.kind], str(run.folder / RUN_FILE)]
    if not is_under_torchrun(run):
        return [sys.executable, *program]
    return [_python(run), "-m", torchrun.MODULE, *torchrun.arguments(run.config), *program]


def _python(run: StageRun) -> str:
    """The interpreter of a stage: that of its image if it has one of its own, else this process's."""
    launcher = run.config.get("launcher") or {}
    in_image = launcher["kubernetes"]["python"] if launcher.get("kind") == "kubernetes" else None
    return in_image or sys.executable


def is_under_torchrun(run: StageRun) -> bool:
    return run.kind != "prepare"


def environment(run: StageRun, config: Experiment) -> dict[str, str]:
    """Variables for the stage's process; those in ``wanted`` give way to what is already set."""
    launcher = run.config.get("launcher") or {}
    processes = int(launcher.get("nproc_per_node") or 1)
    threads = launcher.get("omp_num_threads") or max(1, usable_cores() // processes)
    wanted = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true",
        "WANDB_MODE": "offline",
        "WANDB_PROJECT": config.exp_name,
        "WANDB_NOTES": f"experiment {display(config.path)}" if config.path else GIVEN,
    }
    own = {
        # The current folder may hold a `datasets.py`: see titanflow.architectures.custom_code.
        "PYTHONSAFEPATH": "1",
        # Files and logs are UTF-8 in every locale.
        "PYTHONUTF8": "1",
        STAGE_FOLDER: str(run.folder),
    }
    if launcher.get("device") == "cpu":
        own["CUDA_VISIBLE_DEVICES"] = ""
    return {key: os.environ.get(key, value) for key, value in wanted.items()} | own


def by_hand(command: Sequence[str], env: Mapping[str, str]) -> str:
    """The line that runs a stage again in a shell, without variables that look like secrets."""
    shown = [f"{name}={value}" for name, value in env.items() if not is_secret(name)]
    return f"cd {shlex.quote(str(Path.cwd()))} && " + shlex.join([*(["env", *shown] if shown else []), *command])
