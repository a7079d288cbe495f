"""A resolved experiment as dotted keys, each with its value and where it comes from: in memory and as lines."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from titanflow.common.console import one_line
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.experiment import Experiment
from titanflow.config.module import Module
from titanflow.evals.asked_tasks import asked_by
from titanflow.evals.suites import described_suites
from titanflow.evals.task_checks import needs_network
from titanflow.files.yaml_source import flatten

KEY_WIDTH, VALUE_WIDTH = 60, 36
"""Columns up to which keys and values are filled with spaces, so that what follows stands below each other."""


def resolved_values(experiment: Experiment, module: str | None = None) -> dict[str, tuple[Any, str]]:
    """Dotted key → (value, origin): of one module with keys as in its files, or of all with the module in front.

    Both have each module's framework and files under the experiment's own keys, ``modules.<name>.…``.

    Raises:
        ConfigError: the experiment has no such module.
    """
    if module is None:
        values = _own_values(experiment)
        for name, one in experiment.modules.items():
            values |= _named(one) | {f"{name}.{key}": entry for key, entry in _of_module(one).items()}
        return values
    if module not in experiment.modules:
        near = difflib.get_close_matches(module, experiment.modules, n=1)
        raise ConfigError(
            Problem(
                f"no module {module!r}",
                key="--module",
                expected=f"one of {', '.join(experiment.modules)}",
                hint=f"did you mean {near[0]}?" if near else "",
            )
        )
    return _named(experiment.modules[module]) | _of_module(experiment.modules[module])


def _of_module(module: Module) -> dict[str, tuple[Any, str]]:
    """The module's values; of a suite that it evaluates also the tasks behind it, and how many need the Hub."""
    behind = described_suites(module.config["tasks"]) if module.stage == "evaluate" else {}
    values = module.values()
    for suite, (tasks, origin) in behind.items():
        single = asked_by({"tasks": [suite]}).single
        from_hub = f"items from the Hub: {sum(map(needs_network, single))} of {len(single)} tasks"
        values[f"tasks: {suite}"] = ([*tasks, from_hub], origin)
    return values


def _own_values(experiment: Experiment) -> dict[str, tuple[Any, str]]:
    """The experiment's own keys; its launcher stands in each module, which may have another."""
    own = {key: value for key, value in asdict(experiment.spec).items() if key not in ("modules", "launcher")}
    own["exp_name"] = experiment.exp_name
    return {key: (value, experiment.origins.get(key, "default")) for key, value in flatten(own).items()}


def _named(module: Module) -> dict[str, tuple[Any, str]]:
    """The module's framework and files, under the keys that they have in the experiment."""
    return {f"modules.{module.name}.{key}": entry for key, entry in module.named.items()}


def value_lines(values: Mapping[str, tuple[Any, str]], origins: bool = False) -> Iterator[str]:
    """Each key with its value as JSON, and with ``origins`` where it comes from: a line each, whatever is in it."""
    shown = [
        (one_line(key), one_line(json.dumps(value, default=str, ensure_ascii=False)), one_line(origin))
        for key, (value, origin) in values.items()
    ]
    keys = min(KEY_WIDTH, max((len(key) for key, _, _ in shown), default=0))
    for key, value, origin in shown:
        yield (f"{key:<{keys}}  {value:<{VALUE_WIDTH}}  {origin}" if origins else f"{key:<{keys}}  {value}")
