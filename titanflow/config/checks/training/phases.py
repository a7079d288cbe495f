"""Refuses a mixture's phases that no training can go through, and keys that mean nothing beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from typing import Any

from titanflow.common.errors import Problem, did_you_mean
from titanflow.config.keys.training import Phase
from titanflow.config.mixture import phase_ends
from titanflow.config.module import Module

KEYS = [field.name for field in fields(Phase)]
WITHOUT_PHASES = {"strategy": "interleave", "stop": "first_exhausted"}
"""Keys of a mixture that its phases leave nothing to say, with their defaults."""
SCORED = "validation_data"
Fault = tuple[str, str, str]
"""What was found, what was expected, and what to do."""


def check_phases(module: Module) -> list[Problem]:
    mixtures = {section: (module.config.get(section) or {}).get("mixture") or {} for section in ("data", SCORED)}
    return [problem for section, one in mixtures.items() if one.get("phases") for problem in _check(module, section)]


def _check(module: Module, section: str) -> Iterator[Problem]:
    mixture, key = module.config[section]["mixture"], f"{section}.mixture.phases"
    if section == SCORED:
        found, hint = "found phases, and a validation reads each row once", "leave them out; the sources are enough"
        yield module.problem(key, found, hint=hint)
        return
    if not mixture["sources"]:
        yield module.problem(key, "found phases, and the mixture has no sources", hint="name its sources in `sources`")
        return
    faults = list(_shape(mixture["phases"])) or list(_faults(mixture, module.config["training"]["steps"]))
    yield from (module.problem(key, *fault) for fault in faults)
    yield from _idle(module, section, mixture)


def _shape(phases: list[dict[str, Any]]) -> Iterator[Fault]:
    """Phases that lack a key, or have one that nothing reads: a schema doesn't look into a list."""
    for number, phase in enumerate(phases, 1):
        for key in phase:
            if key not in KEYS:
                yield f"phase {number} has an unknown key {key!r}", " and ".join(KEYS), did_you_mean(key, KEYS)
        if missing := [key for key in KEYS if key not in phase]:
            yield f"phase {number} lacks {' and '.join(missing)}", "{until: 0.8, weights: {a: 3, b: 1}}", ""


def _faults(mixture: dict[str, Any], steps: int) -> Iterator[Fault]:
    phases, sources = mixture["phases"], list(mixture["sources"])
    untils = [phase["until"] for phase in phases]
    if untils[-1] != 1:
        yield f"the last phase ends at {untils[-1]:g}", "1, the end of the training", ""
    rising = all(before < after for before, after in pairwise([0, *untils]))
    if not rising:
        yield f"the phases end at {', '.join(f'{one:g}' for one in untils)}", "shares that rise from above 0 to 1", ""
    elif untils[-1] == 1:
        for number, (start, end) in enumerate(pairwise([0, *phase_ends(phases, steps)]), 1):
            if start == end:
                hint = "give it a larger share, or the training more steps"
                yield f"phase {number} has no step of training.steps={steps}", "one step or more", hint
    for number, phase in enumerate(phases, 1):
        yield from _weight_faults(number, phase["weights"], sources)
    if idle := [name for name in sources if not any(phase["weights"].get(name) for phase in phases)]:
        yield f"no phase reads {' or '.join(idle)}", "a weight above 0 in one of them", "or leave the source out"


def _weight_faults(number: int, weights: dict[str, float], sources: list[str]) -> Iterator[Fault]:
    for name, weight in weights.items():
        if name not in sources:
            hint = did_you_mean(name, sources)
            yield f"phase {number} has a weight for {name!r}, which is no source", f"one of {', '.join(sources)}", hint
        elif not 0 <= weight < math.inf:
            yield f"phase {number} gives {name} the weight {weight}", "0 or a number above", ""
    if (total := sum(weights.values())) == 0 or total == math.inf:
        yield f"the weights of phase {number} sum to {total:g}", "at least one above 0", ""


def _idle(module: Module, section: str, mixture: dict[str, Any]) -> Iterator[Problem]:
    """What the sources' own weights and ends would say, and the phases say otherwise."""
    for key, default in WITHOUT_PHASES.items():
        if mixture[key] != default:
            message = f"found {mixture[key]!r}, which means nothing with phases: they say which rows are read when"
            yield module.problem(f"{section}.mixture.{key}", message, hint="leave it out, or the phases")
    for name, source in mixture["sources"].items():
        for key in ("weight", "epochs"):
            if key in source:
                message = f"found {source[key]}, which means nothing with phases: each has its own weights"
                place = f"{section}.mixture.sources.{name}.{key}"
                yield module.problem(place, message, hint="leave it out, or the phases")


OF_TRAINING = (check_phases,)
