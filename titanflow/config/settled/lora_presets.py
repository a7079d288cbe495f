"""Names in ``lora.modules_to_save`` for modules that adapters alone can't teach, whatever the model's family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from titanflow.architectures.blocks import EMBEDDINGS, HEAD
from titanflow.architectures.families.registry import PARAMETER_GROUPS
from titanflow.architectures.weights import module_names, without_layer
from titanflow.common.errors import Problem
from titanflow.config.checks.model import argument_faults

if TYPE_CHECKING:
    from titanflow.config.module import Module

KEY = "lora.modules_to_save"
TOKENS = "tokens"
"""Embeddings and output head: a token that the base never read, such as a chat template's, means nothing yet, and
adapters in the layers can't change that."""
ROUTED = "routed"
"""Modules that decide which tokens a layer computes (routers, predictors, priors, students): no adapter is there."""


def settle_presets(module: Module) -> None:
    """Replaces the presets in a training module's config by the modules that they stand for."""
    if not module.trains:
        return
    name, saved = module.config["model"]["name"], module.config["lora"]["modules_to_save"]
    if saved and not argument_faults(name, module.model_args):
        linears, others = module_names(name, module.model_args)
        module.config["lora"]["modules_to_save"] = expanded(saved, name, [*linears, *others])


def expanded(patterns: Iterable[str], family: str, names: Iterable[str]) -> list[str]:
    """The patterns, each preset replaced by its modules among ``names``; a preset without any stays as it is."""
    routed = {module for modules in PARAMETER_GROUPS.get(family, {}).values() for module in modules}
    found = [without_layer(name) for name in names if routed & set(name.split("."))]
    meant = {TOKENS: [EMBEDDINGS, HEAD], ROUTED: found}
    return list(dict.fromkeys(name for pattern in patterns for name in meant.get(pattern) or [pattern]))


def preset_problems(config: Mapping[str, Any]) -> list[Problem]:
    """A preset that the model's family has no modules for."""
    family = config["model"]["name"]
    if ROUTED not in config["lora"]["modules_to_save"] or family in PARAMETER_GROUPS:
        return []
    expected = f"names of modules, or {TOKENS!r}; {ROUTED!r} is for {', '.join(PARAMETER_GROUPS)}"
    return [Problem(f"found {ROUTED!r}, and {family} has no routed layers", KEY, expected=expected)]
