"""A resolved experiment as dotted keys, each with its value and where it comes from."""

from __future__ import annotations

import difflib
from typing import Any

from titanflow.config.experiment import Experiment
from titanflow.errors import ConfigError, Problem


def resolved_values(experiment: Experiment, module: str | None = None) -> dict[str, tuple[Any, str]]:
    """Dotted key → (value, origin): of one module with keys as in its files, or of all with the module in front.

    Raises:
        ConfigError: the experiment has no such module.
    """
    if module is None:
        return {
            f"{name}.{key}": entry for name, one in experiment.modules.items() for key, entry in one.values().items()
        }
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
    return experiment.modules[module].values()
