"""How each model family is written for transformers: the class that computes the same, and its config.

A family from outside calls :func:`register_hugging_face_model` where it registers its ``TrainSpec``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titan.process.lean_transformers import leave_out_scipy
from titanflow.architectures.families.registry import ARCHITECTURES, export_refusal

MakeConfig = Callable[[Any, dict[str, Any]], Any]
"""Makes a transformers config from a family's ``ModelArgs`` and what all configs have in common."""


@dataclass(frozen=True)
class HuggingFaceModel:
    """The transformers side of a family.

    ``architecture`` is the class's name, as in ``config.json``, and ``module`` where it is imported from: a module
    other than transformers goes into the export beside the weights, for ``trust_remote_code``.
    """

    architecture: str
    make_config: MakeConfig
    module: str = "transformers"

    @property
    def has_code(self) -> bool:
        """Whether an export needs a modelling file of its own."""
        return self.module != "transformers"

    def model_class(self) -> Any:
        leave_out_scipy()
        return getattr(importlib.import_module(self.module), self.architecture)


_registered: dict[str, HuggingFaceModel] = {}


def register_hugging_face_model(family: str, model: HuggingFaceModel) -> None:
    """Makes a family exportable; refuses one that is exportable already."""
    if family in _registered or _has_module(family):
        raise ValueError(f"{family} is registered already")
    _registered[family] = model


def hugging_face_model(family: str, model_args: Any) -> HuggingFaceModel:
    """The registered model of a family, or that of torchtitan's own family with these arguments.

    Raises:
        KeyError: the family has no export.
    """
    if family in _registered:
        return _registered[family]
    if not export_refusal(family) and _has_module(family):
        return importlib.import_module(f"titan.models.{family}.huggingface").hugging_face_model(model_args)
    raise KeyError(family)


def _has_module(family: str) -> bool:
    """Whether the family is torchtitan's own, with its transformers side in its folder here."""
    return (Path(__file__).with_name(family) / "huggingface.py").is_file()


def refusal(family: str, model_args: Mapping[str, Any] | None = None) -> str:
    """Why a model can't be exported; see :func:`titanflow.architectures.families.registry.export_refusal`."""
    is_own = family in _registered and family not in ARCHITECTURES
    return "" if is_own else export_refusal(family, model_args)
