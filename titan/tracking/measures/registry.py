"""What is measured in each logged step beside the training itself, one section for each file beside this one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType


def _measures() -> dict[str, ModuleType]:
    package = __name__.rpartition(".")[0]
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return {name: importlib.import_module(f"{package}.{name}") for name in names if name != "registry"}


MEASURES: Mapping[str, ModuleType] = _measures()
"""By section, which is the file's name and the prefix of its metrics: a file with ``METRICS``, the unit and meaning by
key, and ``measure``, their values by key, which all ranks call in each logged step."""
