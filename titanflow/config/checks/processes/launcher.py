"""Checks of a stage's ``launcher``: what its kind needs is there, and what its kind doesn't read isn't."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.checks.processes.kubernetes import kubernetes_problems
from titanflow.config.keys.launcher import Launcher, PrepareLauncher
from titanflow.config.module import Module

SECTIONS = ("slurm", "kubernetes")
"""A kind of cluster's own section has its name."""
ONE_MACHINE_ALONE = {
    "node_rank": "a cluster knows its nodes: leave it out",
    "rdzv_endpoint": "a cluster's nodes meet on the first of them: leave it out",
    "share_device": "a cluster gives a job devices of its own: leave it out",
}
"""Keys that no cluster's job reads, and what to do instead."""
OWN_OPTIONS = (
    *("nodes", "ntasks-per-node", "job-name", "output", "error", "open-mode", "chdir", "export", "signal", "parsable"),
    *("requeue", "no-requeue", "array", "wrap", "dependency", "wait"),
)
"""Options of sbatch that a stage's job sets itself, or with which it would be no single job any more."""
SHORT_OPTIONS = {"-N": "nodes", "-J": "job-name", "-o": "output", "-e": "error", "-D": "chdir", "-a": "array"}
SET_KIND = "set launcher.kind: slurm, or leave it out"
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def check_launcher(module: Module) -> list[Problem]:
    """What a stage's section ``launcher`` has that its kind can't use."""
    launcher = module.config.get("launcher")
    if not launcher:
        return []
    kind = launcher["kind"]
    found = [*_of_other_kinds(launcher), *(_of_this_machine(launcher) if kind == "local" else _of_no_cluster(launcher))]
    if kind == "slurm":
        found += _of_slurm(launcher)
    if kind == "kubernetes":
        found += ((f"kubernetes.{key}", *rest) for key, *rest in kubernetes_problems(launcher))
    found += _of_rows(module)
    return [module.problem(f"launcher.{key}", *rest) for key, *rest in found]


def _of_rows(module: Module) -> Iterator[tuple[str, ...]]:
    if (place := module.config["launcher"]["local_data"]) is None:
        return
    if not place.startswith(("/", "$")):
        yield "local_data", f"found {place!r}", "a whole path, or one that begins with a variable of the machine"
    if module.trains and module.config["data"]["streaming"]:
        yield "local_data", f"found {place!r}, and data.streaming reads no prepared rows", "", "leave out one of both"


def prepare_problems(asked: PrepareLauncher, origins: Mapping[str, str]) -> list[Problem]:
    """What ``prepare.launcher`` has that its kind can't use; ``origins`` are the experiment's."""
    launcher = asdict(asked)
    found = [*_of_other_kinds(launcher), *(_of_slurm(launcher) if asked.kind == "slurm" else ())]
    if asked.kind == "local" and asked.nnodes > 1:
        hint = "set prepare.launcher.kind: slurm, or leave it out"
        found.append(("nnodes", f"found {asked.nnodes}, and prepare.launcher.kind is local", "1", hint))
    keys = ((f"prepare.launcher.{key}", *rest) for key, *rest in found)
    return [Problem(message, key, origins.get(key, ""), *rest) for key, message, *rest in keys]


def limit_seconds(time: str) -> int | None:
    """A time limit as ``sbatch --time`` takes it, in seconds; None where it is none."""
    found = TIME.fullmatch(time.strip())
    if found is None:
        return None
    days, *others = found.groups()
    parts = [int(part) for part in others if part is not None]
    # 90 are minutes, 1:30 minutes and seconds, 1:30:00 hours first; with days, hours come first.
    scales = (3600, 60, 1) if days or len(parts) == 3 else (60, 1)
    return 86400 * int(days or 0) + sum(part * scale for part, scale in zip(parts, scales, strict=False))


def _of_this_machine(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if launcher["nnodes"] > 1 and not launcher["rdzv_endpoint"]:
        yield "rdzv_endpoint", "found null, with several machines", "host:port"


def _of_other_kinds(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    kind, unset = launcher["kind"], asdict(Launcher())
    for section in SECTIONS:
        for key, value in launcher.get(section, {}).items() if section != kind else ():
            if value != unset[section][key]:
                hint = f"set launcher.kind: {section}, or leave it out"
                yield f"{section}.{key}", f"found {value!r}, and launcher.kind is {kind}: nothing reads it", "", hint


def _of_no_cluster(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, hint in ONE_MACHINE_ALONE.items():
        if launcher[key] != asdict(Launcher())[key]:
            yield key, f"found {launcher[key]!r}, and launcher.kind is {launcher['kind']}", "", hint


def _of_slurm(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    asked = launcher["slurm"]
    if asked["time"] is not None:
        seconds, least = limit_seconds(str(asked["time"])), asked["save_seconds"]
        if seconds is None:
            yield "slurm.time", f"found {asked['time']!r}", "minutes, hours:minutes:seconds or days-hours"
        elif seconds <= least:
            hint = "ask for more time, or lower launcher.slurm.save_seconds"
            yield "slurm.time", f"found {seconds} s, and the stage saves {least} s before its end", f"> {least} s", hint
    for option in asked["extra"]:
        name = option.split("=")[0]
        name = SHORT_OPTIONS.get(name[:2], name) if not name.startswith("--") else name.removeprefix("--")
        if not option.startswith("-"):
            yield "slurm.extra", f"found {option!r}", "options as one word each: --exclusive, --cpus-per-task=8"
        elif name in OWN_OPTIONS:
            yield "slurm.extra", f"found {option!r}", "options that the stage's job doesn't set itself"
