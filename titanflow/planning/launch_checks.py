"""Checks that each stage's command would start: its module, its packages, torchrun, and its ``run.yaml``."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from titanflow.common.errors import ConfigError, Problem
from titanflow.planning.cluster.job_checks import job_problems, pod_problems
from titanflow.planning.launch import MODULES, is_under_torchrun
from titanflow.runs import torchrun
from titanflow.runs.contract import StageKind, StageRun
from titanflow.runs.tracker_record import TITLES, asked_trackers

if TYPE_CHECKING:
    from titanflow.planning.stage_plan import StagePlan

PACKAGES: dict[StageKind, tuple[str, ...]] = {
    "prepare": ("datasets", "tokenizers"),
    "pretrain": ("torch", "torchtitan"),
    "sft": ("torch", "torchtitan"),
    "prefer": ("torch", "torchtitan"),
    "evaluate": ("torch", "lm_eval", "transformers"),
    "publish": ("torch", "huggingface_hub"),
}
"""The packages that a stage's processes import, torchrun's included."""
GGUF_PACKAGES = ("gguf", "xllamacpp")
"""What writes GGUF files, and llama.cpp itself: without a proof none is published."""
PARSES = """
import contextlib, io, json, sys
from torch.distributed.run import parse_args
refusals = []
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            parse_args(arguments)
        except SystemExit:
            pass
    refusals.append(said.getvalue().strip().rpartition("\\n")[2])
print(json.dumps(refusals))
"""


def check_launches(plans: Iterable[StagePlan], runs_here: bool = True) -> list[str]:
    """Refuses a stage that is to run and whose process couldn't start; imports none of the packages.

    Returns:
        Warnings of clusters' jobs, such as what a cluster couldn't be asked.
    """
    at_work = [plan for plan in plans if plan.state != "CACHED"]
    problems = [problem for plan in at_work for problem in launch_problems(plan.run)]
    if problems:
        raise ConfigError(problems)
    problems, warnings = job_problems((plan for plan in at_work if plan.is_job), runs_here)
    if problems:
        raise ConfigError(problems)
    return warnings


def launch_problems(run: StageRun) -> list[Problem]:
    hint = "install the project with its dependencies: `make plan` or `pip install -e .`"
    key, here = f"{run.stage}'s command", f"found by {sys.executable}"
    extra: tuple[str, ...] = ("vllm",) if run.config.get("backend") == "vllm" else ()
    if run.config.get("gguf"):
        extra, hint = GGUF_PACKAGES, f'install them: `pip install "titanflow[gguf]"`; or leave {run.stage}.gguf out'
    missing = [name for name in (*PACKAGES[run.kind], *extra) if importlib.util.find_spec(name) is None]
    problems = [Problem(f"there is no package {name!r}", key, expected=here, hint=hint) for name in missing]
    problems += [*tracker_problems(run), *pod_problems(run)]
    if not is_importable(MODULES[run.kind]):
        problems.append(Problem(f"there is no module {MODULES[run.kind]!r}", key, expected=here, hint=hint))
    if is_under_torchrun(run) and "torch" not in missing and not is_importable(torchrun.MODULE):
        problems.append(Problem("this torch has no torchrun", key, expected=torchrun.MODULE, hint=hint))
    launcher = run.config.get("launcher") or {}
    rank, machines = launcher.get("node_rank", 0), launcher.get("nnodes", 1)
    if not 0 <= rank < machines:
        origin = run.origins.get("launcher.node_rank", "")
        problems.append(Problem(f"found {rank}", f"{run.stage}.launcher.node_rank", origin, f"0 to {machines - 1}"))
    try:
        StageRun.model_validate(run.model_dump(mode="json"))
    except ValidationError as error:
        problems.append(Problem(f"its run.yaml couldn't be read back: {error}", key))
    return problems


def tracker_problems(run: StageRun) -> list[Problem]:
    """The trackers that a stage asks for and whose package is missing."""
    problems = []
    for tracker in asked_trackers(run.config):
        if importlib.util.find_spec(tracker) is None:
            key = tracker if run.kind == "evaluate" else f"metrics.enable_{tracker}"
            package = "wandb" if tracker == "wandb" else f"'titanflow[{tracker}]'"
            hint = f"pip install {package}, or set it to false"
            found = f"found true, and {TITLES[tracker]}'s package {tracker!r} is not installed"
            where = f"found by {sys.executable}"
            problems.append(Problem(found, f"{run.stage}.{key}", run.origins.get(key, ""), where, hint))
    return problems


def is_importable(module: str) -> bool:
    """Whether a dotted module is there. Looks for its file: ``find_spec`` would import the packages above it."""
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top)
    paths = [Path(place, *below) for place in (spec and spec.submodule_search_locations) or ()]
    return any(path.with_name(f"{path.name}.py").is_file() or (path / "__init__.py").is_file() for path in paths)


def torchrun_problems(plans: Iterable[StagePlan]) -> list[Problem]:
    """What torchrun's own parser refuses in each stage's command; imports torch, in a process of its own."""
    tried = {
        plan.stage: [*torchrun.arguments(plan.run.config), "-m", MODULES[plan.kind]]
        for plan in plans
        if is_under_torchrun(plan.run)
    }
    if not tried:
        return []
    program = [sys.executable, "-c", PARSES, json.dumps(list(tried.values()))]
    done = subprocess.run(program, capture_output=True, text=True)
    said = json.loads(done.stdout) if done.returncode == 0 else [done.stderr.strip()] * len(tried)
    return [
        Problem(f"torchrun refuses {shlex.join(arguments)}: {refusal}", f"{stage}'s command")
        for (stage, arguments), refusal in zip(tried.items(), said, strict=True)
        if refusal
    ]
