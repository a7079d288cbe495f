"""Overrides of a model's arguments: ``model.n_layers: 4`` replaces a value of one flavor of one model.

The errors are part of the interface: they name what was found and what is known.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from titanflow.files.yaml_source import flatten

PREFIX = "model."


def override_model_args(
    flavors: Mapping[str, Any], model_name: str | None, flavor: str | None, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The flavors of a model, copied, with ``overrides`` (dotted keys, no ``model.``) applied to one of them.

    The mapping given, and the arguments in it, stay as they were. The arguments' own check (``__post_init__``) sees
    the overrides.

    Raises:
        ValueError: the model or its flavor isn't named; or what the arguments' own check raises.
        KeyError: the model has no such flavor.
        AttributeError: the flavor's arguments have no such field.
        TypeError: a value of another type than the field's.
    """
    if not model_name:
        raise ValueError("model.name is required for model override patch")
    if not flavor:
        raise ValueError("model.flavor is required for model override patch")
    if flavor not in flavors:
        raise KeyError(f"flavor {flavor!r} not found in model_args for {model_name!r}; known: {', '.join(flavors)}")
    copied = copy.deepcopy(dict(flavors))
    for key, value in flatten(overrides).items():
        _set(copied[flavor], key, value)
    if overrides and hasattr(copied[flavor], "__post_init__"):
        copied[flavor].__post_init__()
    return copied


def _set(args: Any, dotted: str, value: Any) -> None:
    *above, last = dotted.split(".")
    for part in above:
        _require_field(args, part, dotted)
        args = getattr(args, part)
    hint = _require_field(args, last, dotted)
    try:
        setattr(args, last, TypeAdapter(hint).validate_python(value, strict=True))
    except ValidationError:
        expected = hint.__name__ if isinstance(hint, type) else str(hint)
        raise TypeError(f"{PREFIX}{dotted}: found {value!r} ({type(value).__name__}), expected {expected}") from None


def _require_field(args: Any, name: str, dotted: str) -> Any:
    fields = {field.name for field in dataclasses.fields(args)} if dataclasses.is_dataclass(args) else set()
    if name not in fields:
        where = "" if name == dotted else f" (in model.{dotted})"
        known = ", ".join(sorted(field for field in fields if not field.startswith("_")))
        raise AttributeError(f"{type(args).__name__!r} has no field {name!r}{where}; fields: {known}", name=dotted)
    return get_type_hints(type(args))[name]
