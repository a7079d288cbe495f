"""A resolved experiment as dotted keys, each with its value and origin: in memory and as lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from titanflow.common.console import one_line
from titanflow.common.errors import ConfigError, Problem, did_you_mean
from titanflow.config.experiment import Experiment
from titanflow.config.module import Module
from titanflow.evals.asked_tasks import asked_by
from titanflow.evals.suites import described_suites
from titanflow.evals.task_checks import needs_network
from titanflow.files.yaml_source import flatten

KEY_WIDTH, VALUE_WIDTH = 60, 36
"""Widths to which keys and values are padded, so that columns line up."""


def resolved_values(experiment: Experiment, module: str | None = None) -> dict[str, tuple[Any, str]]:
    """Dotted key → (value, origin): of one module by the keys of its files, or of all behind their names."""
    if module is None:
        values = _own_values(experiment)
        for name, one in experiment.modules.items():
            values |= _named(one) | {f"{name}.{key}": entry for key, entry in _of_module(one).items()}
        return values
    check_module(experiment, module)
    return _named(experiment.modules[module]) | _of_module(experiment.modules[module])


def check_module(experiment: Experiment, name: str) -> None:
    """Refuses the name of a module that the experiment lacks.

    Raises:
        ConfigError: names those that it has.
    """
    if name not in experiment.modules:
        hint, expected = did_you_mean(name, experiment.modules), f"one of {', '.join(experiment.modules)}"
        raise ConfigError(Problem(f"no module {name!r}", "--module", expected=expected, hint=hint))


def _of_module(module: Module) -> dict[str, tuple[Any, str]]:
    """A module's values, and for each suite that it evaluates the tasks behind it and how many need the Hub."""
    behind = described_suites(module.config["tasks"]) if module.kind == "evaluate" else {}
    values = module.values()
    for suite, (tasks, origin) in behind.items():
        single = asked_by({"tasks": [suite]}).single
        from_hub = f"items from the Hub: {sum(map(needs_network, single))} of {len(single)} tasks"
        values[f"tasks: {suite}"] = ([*tasks, from_hub], origin)
    return values


def _own_values(experiment: Experiment) -> dict[str, tuple[Any, str]]:
    """The experiment's own keys, without the launcher: each module has one, which may differ."""
    own = {key: value for key, value in asdict(experiment.spec).items() if key not in ("modules", "launcher")}
    own["exp_name"] = experiment.exp_name
    return {key: (value, experiment.origins.get(key, "default")) for key, value in flatten(own).items()}


def _named(module: Module) -> dict[str, tuple[Any, str]]:
    # A module's framework and files have the experiment's keys, also where only that module is shown.
    return {f"modules.{module.name}.{key}": entry for key, entry in module.named.items()}


def value_lines(values: Mapping[str, tuple[Any, str]], origins: bool = False) -> Iterator[str]:
    """One line for each key: its value as JSON and, with ``origins``, where it comes from."""
    shown = [
        (one_line(key), one_line(json.dumps(value, default=str, ensure_ascii=False)), one_line(origin))
        for key, (value, origin) in values.items()
    ]
    keys = min(KEY_WIDTH, max((len(key) for key, _, _ in shown), default=0))
    for key, value, origin in shown:
        yield (f"{key:<{keys}}  {value:<{VALUE_WIDTH}}  {origin}" if origins else f"{key:<{keys}}  {value}")
