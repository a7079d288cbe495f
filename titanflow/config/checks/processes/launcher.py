"""Checks of a stage's ``launcher``: what its kind needs is there, and what its kind doesn't read isn't."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.checks.processes.kubernetes import kubernetes_problems
from titanflow.config.checks.processes.slurm import slurm_problems
from titanflow.config.keys.launcher import Launcher, PrepareLauncher
from titanflow.config.module import Module

PROBLEMS = {"slurm": slurm_problems, "kubernetes": kubernetes_problems}
"""The checks of a kind of cluster's own section, which has its name."""
ONE_MACHINE_ALONE = {
    "node_rank": "a cluster knows its nodes: leave it out",
    "rdzv_endpoint": "a cluster's nodes meet on the first of them: leave it out",
    "share_device": "a cluster gives a job devices of its own: leave it out",
}
"""Keys that no cluster's job reads, and what to do instead."""


def check_launcher(module: Module) -> list[Problem]:
    """What a stage's section ``launcher`` has that its kind can't use."""
    launcher = module.config.get("launcher")
    if not launcher:
        return []
    kind = launcher["kind"]
    found = [*_of_other_kinds(launcher), *(_of_this_machine(launcher) if kind == "local" else _of_no_cluster(launcher))]
    found += [*_of_its_kind(launcher), *_of_rows(module)]
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
    found = [*_of_other_kinds(launcher), *_of_its_kind(launcher)]
    if asked.kind == "local" and asked.nnodes > 1:
        hint = "set prepare.launcher.kind: slurm, or leave it out"
        found.append(("nnodes", f"found {asked.nnodes}, and prepare.launcher.kind is local", "1", hint))
    keys = ((f"prepare.launcher.{key}", *rest) for key, *rest in found)
    return [Problem(message, key, origins.get(key, ""), *rest) for key, message, *rest in keys]


def _of_this_machine(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if launcher["nnodes"] > 1 and not launcher["rdzv_endpoint"]:
        yield "rdzv_endpoint", "found null, with several machines", "host:port"


def _of_its_kind(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The problems of the section that the kind has, if it has one."""
    if (kind := launcher["kind"]) in PROBLEMS:
        yield from ((f"{kind}.{key}", *rest) for key, *rest in PROBLEMS[kind](launcher))


def _of_other_kinds(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    kind, unset = launcher["kind"], asdict(Launcher())
    for section in PROBLEMS:
        for key, value in launcher.get(section, {}).items() if section != kind else ():
            if value != unset[section][key]:
                hint = f"set launcher.kind: {section}, or leave it out"
                yield f"{section}.{key}", f"found {value!r}, and launcher.kind is {kind}: nothing reads it", "", hint


def _of_no_cluster(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, hint in ONE_MACHINE_ALONE.items():
        if launcher[key] != asdict(Launcher())[key]:
            yield key, f"found {launcher[key]!r}, and launcher.kind is {launcher['kind']}", "", hint
