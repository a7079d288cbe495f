"""The model families by their names: torchtitan's specs, and their arguments from what a config says."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from titanflow.errors import DataError, Problem
from titanflow.families import OWN_FAMILIES


def train_spec(model_name: str) -> Any:
    """The ``TrainSpec`` of a model family, torchtitan's or this project's, on any machine."""
    from titan.patches import apply_patches

    apply_patches(["cpu_device", "experts_on_cpu", "deepseek_args", "deepseek_yarn", "llama4_adapter"])
    from torchtitan.protocols.train_spec import get_train_spec

    if model_name in OWN_FAMILIES:
        importlib.import_module(OWN_FAMILIES[model_name])

    return get_train_spec(model_name)


def model_args_from(model_name: str, values: Mapping[str, Any]) -> Any:
    """A family's ``ModelArgs`` from a mapping such as a result's ``model_args``; nested dataclasses included.

    Raises:
        DataError: a key that the installed torchtitan's class doesn't have.
    """
    default = next(iter(train_spec(model_name).model_args.values()))
    return _build(type(default), values, model_name)


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise DataError(Problem(f"{kind.__name__!r} has no field {unknown[0]!r}", key=where))
    blank = kind()
    built = {
        key: _build(type(getattr(blank, key)), value, f"{where}.{key}")
        if dataclasses.is_dataclass(getattr(blank, key)) and isinstance(value, Mapping)
        else value
        for key, value in values.items()
    }
    return kind(**built)
