"""The known model families, one for each file beside this one, and what a plan asks of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titanflow.architectures.family import Family


def _families() -> dict[str, Family]:
    package = __name__.rpartition(".")[0]
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    modules = (importlib.import_module(f"{package}.{name}") for name in names if name != "registry")
    return {module.FAMILY.name: module.FAMILY for module in modules}


FAMILIES: Mapping[str, Family] = _families()

ARCHITECTURES = {family.name: family.architecture for family in FAMILIES.values() if family.architecture}
"""The families with an export, and transformers' class for each (for qwen3 with experts it is Qwen3Moe's)."""

OWN_FAMILIES = {family.name: family.module for family in FAMILIES.values() if family.module}
"""This project's own families, and the module that registers each: ``experimental.custom_import`` names it."""

PARAMETER_GROUPS = {family.name: family.groups for family in FAMILIES.values() if family.groups}
"""The families with routed layers, and their groups of parameters; all other parameters are the base."""


def family_of(name: str) -> Family:
    """A family by its name; an unknown one has nothing but the name."""
    return FAMILIES.get(name) or Family(name)


def export_refusal(family: str, model_args: Mapping[str, Any] | None = None) -> str:
    """Why a model can't be exported; empty if it can.

    Without ``model_args`` only the family counts: its variants (mixture of experts, no QK norm) may have no export.
    """
    if family not in ARCHITECTURES:
        reason = f": {family_of(family).no_export}" if family_of(family).no_export else ""
        return f"there is no export for the model family {family!r}{reason}; supported: {', '.join(ARCHITECTURES)}"
    args = dict(model_args or {})
    experts = args.get("moe_args") if args.get("moe_enabled", True) else None
    found = args | {f"moe_args.{key}": value for key, value in (experts or {}).items()}
    wrong = [
        f"{key} is {found[key]!r}, expected {wanted!r}: {why}"
        for key, (wanted, why) in FAMILIES[family].needed.items()
        if found.get(key, wanted) != wanted
    ]
    if experts is not None:
        wrong += FAMILIES[family].export_faults(args)
        if experts.get("_debug_force_load_balance"):
            wrong.append("debug.moe_force_load_balance is on: the scores choose no experts")
    return f"transformers' class computes something else: {'; '.join(wrong)}" if wrong else ""


def packing_refusals(family: str, context_parallel: int, pipeline_parallel: int) -> dict[str, str]:
    """Why rows can't be packed, by the key that prevents it; empty if they can.

    ``context_parallel`` ranks share each row, ``pipeline_parallel`` ranks the layers.
    """
    refusals = {}
    if masks := family_of(family).own_masks:
        refusals["model.name"] = f"{family} can't keep the documents of a row apart: {masks}"
    if context_parallel > 1:
        refusals["parallelism.context_parallel_degree"] = "the ranks cut each row, and its documents with it"
    if pipeline_parallel > 1:
        refusals["parallelism.pipeline_parallel_degree"] = (
            "torchtitan gives a row's positions to the pipeline's first stage only"
        )
    return refusals


def routed_refusals(degrees: Mapping[str, int], attention: str = "sdpa") -> dict[str, str]:
    """Why a model with routed layers can't be trained so, by the key that prevents it.

    ``degrees`` has each ``parallelism.…_parallel_degree`` by its full key; ``attention`` is the model's ``attn_type``.
    """
    reasons = {
        "parallelism.tensor_parallel_degree": "a routed layer's tokens are chosen from whole rows, which it would cut",
        "parallelism.context_parallel_degree": "a routed layer's tokens are chosen from whole rows, which it would cut",
        "parallelism.pipeline_parallel_degree": "torchtitan gives a row's positions to the pipeline's first stage only",
    }
    refusals = {key: why for key, why in reasons.items() if degrees.get(key, 1) > 1}
    if attention != "sdpa":
        refusals["model.attn_type"] = f"found {attention!r}, and a routed layer's attention is sdpa"
    return refusals
