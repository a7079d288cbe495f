"""A model family from outside torchtitan: imports the module that a config names and finds its ``TrainSpec``.

A module registers the spec or the function that makes it (``register_train_spec(name, get_train_spec)``), or has a
``get_train_spec`` of its own, which is how torchtitan finds the families in its own folder.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from titanflow.architectures.custom_code import reach_own_code
from titanflow.architectures.families.registry import OWN_FAMILIES
from titanflow.common.errors import ConfigError, Problem
from titanflow.runs.contract import StageRun

KEY = "experimental.custom_import"


def import_custom(run: StageRun) -> None:
    """Imports ``experimental.custom_import``, which registers a family, and the stage's family if it is ours.

    torchtitan's Trainer does so too, but only after the stage has looked up its model.

    Raises:
        ConfigError: there is no such module, or what it has for the stage's family makes no ``TrainSpec``.
    """
    family = (run.config.get("model") or {}).get("name", "")
    if family in OWN_FAMILIES:
        importlib.import_module(OWN_FAMILIES[family])
    module = (run.config.get("experimental") or {}).get("custom_import")
    if not module:
        return
    reach_own_code()
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise _refused(run, f"found {module!r}: {error}", "a module on the Python path") from error
    _register(run, family, imported)


def _register(run: StageRun, family: str, imported: ModuleType) -> None:
    """Registers the ``TrainSpec`` where the module has a function that makes one."""
    from torchtitan.protocols.train_spec import TrainSpec, _extra_train_specs

    found: Any = _extra_train_specs.get(family) or _own_function(imported, family)
    if found is None or isinstance(found, TrainSpec):
        return
    spec = found
    if callable(found):
        try:
            spec = found()
        except Exception as error:
            message = f"{_shown(found)} of {family!r} failed: {type(error).__name__}: {error}"
            raise _refused(run, message, "a function without arguments that returns a TrainSpec") from error
    if not isinstance(spec, TrainSpec):
        message = f"{_shown(found)} of {family!r} is no TrainSpec but {type(spec).__name__}"
        raise _refused(run, message, "a TrainSpec, or a function that returns one")
    _extra_train_specs[family] = spec


def _own_function(imported: ModuleType, family: str) -> Any:
    """The module's own ``get_train_spec``, unless it was imported from torchtitan or the family is torchtitan's."""
    from torchtitan.experiments import _supported_experiments
    from torchtitan.models import _supported_models

    function = getattr(imported, "get_train_spec", None)
    is_own = f"{getattr(function, '__module__', '')}.".startswith(f"{imported.__name__}.")
    return function if is_own and family not in (*_supported_models, *_supported_experiments, *OWN_FAMILIES) else None


def _shown(found: Any) -> str:
    return f"{found.__name__}()" if hasattr(found, "__name__") else "what is registered"


def _refused(run: StageRun, message: str, expected: str) -> ConfigError:
    return ConfigError(run.placed([Problem(message, KEY, expected=expected)]))
