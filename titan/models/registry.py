"""The model families by their names: torchtitan's specs, and their arguments from what a config says."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from titanflow.architectures.families.registry import OWN_FAMILIES
from titanflow.common.errors import DataError, Problem

MODEL_PATCHES = [
    *("late_compile", "late_datasets", "cpu_device", "experts_on_cpu"),
    *("deepseek_args", "deepseek_yarn", "llama4_adapter"),
]
"""What torchtitan's families need to be built, and to compute what they should, on any machine."""


def train_spec(model_name: str) -> Any:
    """The ``TrainSpec`` of a model family, torchtitan's or this project's, patched for any machine."""
    from titan.patches import apply_patches

    apply_patches(MODEL_PATCHES)
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
    built = {
        key: _build(nested, value, f"{where}.{key}")
        if isinstance(value, Mapping) and (nested := _nested(kind, key)) is not None
        else value
        for key, value in values.items()
    }
    return kind(**built)


def _nested(kind: type, field: str) -> type | None:
    """The dataclass that a field may hold, even if its default is None, as llama4's ``rope_scaling_args``."""
    hint = get_type_hints(kind)[field]
    return next(
        (one for one in (hint, *get_args(hint)) if isinstance(one, type) and dataclasses.is_dataclass(one)), None
    )
