"""Checks of a stage's ``launcher``: what its kind needs is there, and what its kind doesn't read isn't."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.checks.processes.kubernetes import kubernetes_problems
from titanflow.config.checks.processes.slurm import slurm_problems
from titanflow.config.keys.experiment import ExperimentSpec
from titanflow.config.keys.launcher import Launcher, PrepareLauncher
from titanflow.config.module import Module
from titanflow.files.origins import is_written, origin_of

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
    found = [] if module.is_written("launcher.kind") else [*_without_kind(launcher)]
    found += _of_this_machine(launcher) if kind == "local" else _of_no_cluster(launcher)
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
    found = [] if is_written(origins, "prepare.launcher.kind") else [*_without_kind(launcher)]
    found += _of_its_kind(launcher)
    if asked.kind == "local" and asked.nnodes > 1:
        hint = "set prepare.launcher.kind: slurm, or leave it out"
        found.append(("nnodes", f"found {asked.nnodes}, and prepare.launcher.kind is local", "1", hint))
    keys = ((f"prepare.launcher.{key}", *rest) for key, *rest in found)
    return [Problem(message, key, origin_of(origins, key), *words) for key, message, *words in keys]


def idle_sections(modules: Iterable[Module], spec: ExperimentSpec, origins: Mapping[str, str]) -> list[str]:
    """A line for each section of a kind of cluster that isn't used, since another kind was chosen; ``origins`` are the
    experiment's."""
    found: dict[str, list[str]] = {}
    for module in (one for one in modules if one.config.get("launcher")):
        for line in _idle(module.config["launcher"], "launcher", module.origins):
            found.setdefault(line, []).append(module.name)
    lines = [f"{', '.join(stages)}: {line}" for line, stages in found.items()]
    return [*lines, *_idle(asdict(spec.prepare.launcher), "prepare.launcher", origins)]


def _idle(launcher: Mapping[str, Any], key: str, origins: Mapping[str, str]) -> Iterator[str]:
    for section in dict.fromkeys(section for section, _, _ in _of_other_kinds(launcher)):
        chosen = f"{key}.kind is {launcher['kind']} ({origins[f'{key}.kind']})"
        yield f"{key}.{section} ({origin_of(origins, f'{key}.{section}')}) isn't used: {chosen}"


def _of_this_machine(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if (machines := launcher["nnodes"]) > 1 and not launcher["rdzv_endpoint"]:
        expected = "1, or launcher.rdzv_endpoint: host:port, where machines that are started by hand meet"
        hint = "for this machine alone: --set launcher='{kind: local, nnodes: 1}'"
        yield "nnodes", f"found {machines}, and launcher.kind is local", expected, hint


def _of_its_kind(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The problems of the section that the kind has, if it has one."""
    if (kind := launcher["kind"]) in PROBLEMS:
        yield from ((f"{kind}.{key}", *rest) for key, *rest in PROBLEMS[kind](launcher))


def _without_kind(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """What is asked of a cluster where nobody wrote a kind: most likely it was forgotten."""
    kind = launcher["kind"]
    for section, key, value in _of_other_kinds(launcher):
        hint = f"set launcher.kind: {section}, or leave it out"
        yield f"{section}.{key}", f"found {value!r}, and launcher.kind is {kind}: nothing reads it", "", hint


def _of_other_kinds(launcher: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The sections of other kinds than the launcher's, with each key and value that isn't the default."""
    unset = asdict(Launcher())
    for section in PROBLEMS:
        for key, value in launcher.get(section, {}).items() if section != launcher["kind"] else ():
            if value != unset[section][key]:
                yield section, key, value


def _of_no_cluster(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, hint in ONE_MACHINE_ALONE.items():
        if launcher[key] != asdict(Launcher())[key]:
            yield key, f"found {launcher[key]!r}, and launcher.kind is {launcher['kind']}", "", hint
