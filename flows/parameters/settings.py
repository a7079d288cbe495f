"""What a flow run's parameters set of its experiment, and how that is told in the run's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.parameters.form import StageForm
from titanflow.common.errors import ConfigError, Problem

SHOWN = 3
"""Settings that a name tells; of more it tells how many."""
UNSAID = ("training", "optimizer", "lr_scheduler")
"""Sections whose keys say enough."""
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
    """Dotted key → value of all that is set: by short parameters, by the stages' forms, and by name.

    Raises:
        ConfigError: two of them set one key to different values.
    """
    found: dict[str, tuple[Any, str]] = {}
    problems = []
    short = [(KNOBS[name], value, name) for name, value in knobs.items() if value is not None]
    filled = [
        (key, value, stage) for stage, form in forms.items() for key, value in form.overrides(f"{stage}.").items()
    ]
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
    """What a flow run is called: ``stdlib/main``, and what it sets, as ``stdlib/main pretrain.steps=200``."""
    shown = [f"{_short(key)}={value}" for key, value in settings.items()]
    more = [f"and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
    return " ".join([f"{experiment}/{run}", *shown[:SHOWN], *more])


def _short(key: str) -> str:
    """A dotted key without the best-known sections: ``pretrain.training.steps`` → ``pretrain.steps``."""
    return ".".join(part for part in key.split(".") if part not in UNSAID)
