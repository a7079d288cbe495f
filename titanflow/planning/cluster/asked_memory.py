"""Whether the memory that a job asks for on each node holds its training and the export after it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import Problem
from titanflow.common.quantities import size
from titanflow.planning.forecast.device import DeviceSpec

if TYPE_CHECKING:
    from titanflow.config.module import Module
    from titanflow.planning.forecast.forecast import Forecast

KEYS = {"slurm": "launcher.slurm.mem", "kubernetes": "launcher.kubernetes.resources.memory"}
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]?)(i?)B?", re.IGNORECASE)
LETTERS = "KMGTPE"


def memory_problem(module: Module, forecast: Forecast, device: DeviceSpec) -> tuple[Problem | None, Problem | None]:
    """The refusal of a job's memory, and the doubt about it; two None if it is enough, or nothing is asked for.

    On a CPU the ranks of a node share it. What a training on GPUs takes beside them isn't forecast, so that there only
    the export counts. It is refused if the ranks' weights, gradients and moments alone are more.

    Args:
        module: a training module whose launcher's kind is a cluster.
        forecast: of its stage.
        device: of each of its ranks.
    """
    launcher = module.config["launcher"]
    asked = asked_bytes(launcher)
    if asked is None or forecast.memory is None:
        return None, None
    ranks = int(launcher["nproc_per_node"]) if device.kind == "cpu" else 0
    training, certain, export = ranks * forecast.memory.total, ranks * forecast.memory.certain, forecast.export or 0
    if max(training, export) <= asked:
        return None, None
    parts = [f"{size(training)} while it trains"] if training else []
    parts += [f"{size(export)} while it exports the model"] if export else []
    found = f"found {size(asked)}, and a node is forecast to take {' and '.join(parts)}"
    problem = module.problem(KEYS[launcher["kind"]], found, f"at least {size(max(training, export))}")
    return (problem, None) if certain > asked else (None, problem)


def asked_bytes(launcher: Mapping[str, Any]) -> int | None:
    """The bytes that a job asks for on each node; None if it asks for none, or for all that the node has."""
    if launcher["kind"] == "kubernetes":
        asked = launcher["kubernetes"]["resources"].get("memory")
        return None if asked is None else _bytes(asked, "", 1000)
    asked = launcher["slurm"]["mem"]
    # To Slurm a number is MiB, and 0 is all of a node's memory.
    return None if asked is None else _bytes(asked, "M", 1024) or None


def _bytes(text: str, unit: str, thousand: int) -> int | None:
    found = QUANTITY.fullmatch(text)
    if found is None:
        return None
    amount, letter, binary = found.groups()
    power = LETTERS.index((letter or unit).upper()) + 1 if letter or unit else 0
    return int(float(amount) * (1024 if binary else thousand) ** power)
