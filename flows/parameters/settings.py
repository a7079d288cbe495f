"""The settings of a flow run's parameters, and how the run's name shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flows.parameters.form import StageForm
from titanflow.common.errors import ConfigError, Problem

SHOWN = 3
"""How many settings a name shows; it counts the rest."""
UNSAID = ("training", "optimizer", "lr_scheduler")
"""Sections that a name leaves out: their keys say enough."""
KNOBS = {
    "pretrain_steps": "pretrain.training.steps",
    "sft_steps": "sft.training.steps",
    "pretrain_learning_rate": "pretrain.optimizer.lr",
    "sft_learning_rate": "sft.optimizer.lr",
    "nproc_per_node": "launcher.nproc_per_node",
    "on_stale": "on_stale",
}
"""The flow's short parameters, and the key that each sets."""


def settings_from_parameters(
    knobs: Mapping[str, Any], forms: Mapping[str, StageForm], overrides: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Dotted key → value, as set by short parameters, by the stages' forms, and by name; contradictions are refused."""
    found: dict[str, tuple[Any, str]] = {}
    problems = []
    short = [(KNOBS[name], value, name) for name, value in knobs.items() if value is not None]
    filled = [(key, value, stage) for stage in forms for key, value in forms[stage].overrides(f"{stage}.").items()]
    named = [(key, value, "overrides") for key, value in (overrides or {}).items()]
    for key, value, parameter in [*short, *filled, *named]:
        before, earlier = found.setdefault(key, (value, parameter))
        if before != value:
            message = f"set to {before!r} by {earlier} and to {value!r} by {parameter}"
            problems.append(Problem(message, key, origin="flow parameters", expected="one of them"))
    if problems:
        raise ConfigError(problems)
    return {key: value for key, (value, _) in found.items()}


def run_title(experiment: str, run: str, settings: Mapping[str, Any]) -> str:
    """A flow run's name: ``stdlib/main``, or with settings ``stdlib/main pretrain.steps=200``."""
    shown = [f"{_short(key)}={_as_set(value)}" for key, value in settings.items()]
    more = [f"and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
    return " ".join([f"{experiment}/{run}", *shown[:SHOWN], *more])


def _as_set(value: Any) -> str:
    """A value as ``--set`` takes it: ``null``, ``[a, b]``."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _short(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in UNSAID)
