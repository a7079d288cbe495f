"""Models of which there is no mean: of other families, sizes or tokenizers, or adapters beside whole weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from titanflow.architectures.base import FOLLOWS_SEQ_LEN, is_mutable
from titanflow.common.errors import Problem
from titanflow.config.keys.training import Lora
from titanflow.config.means.recipe import base_mean, means_of
from titanflow.files.yaml_source import flatten

if TYPE_CHECKING:
    from titanflow.config.module import Module


def unlike_models(
    modules: Mapping[str, Module], tokenizers: Mapping[str, Path | None] | None = None
) -> Iterator[Problem]:
    """A problem for each mean whose models differ in what their weights mean.

    Args:
        modules: the experiment's.
        tokenizers: the folder of each module's tokenizer; None before they are known.
    """
    for module in modules.values():
        base, named = base_mean(module.config), means_of(module.config)
        means = {**{f"means.{name}": mean for name, mean in named.items()}, **({"base": base} if base else {})}
        for key, mean in means.items():
            first, *others = (modules[stage] for stage in mean.stages)
            for other in others:
                if what := _difference(first, other) or _other_tokenizer(first, other, modules, tokenizers or {}):
                    found = f"{first.name} and {other.name} are unlike: {what}"
                    yield module.problem(key, found, "models of one kind")


def _difference(first: Module, other: Module) -> str:
    names = [one.config["model"]["name"] for one in (first, other)]
    if names[0] != names[1]:
        return f"model.name is {names[0]} and {names[1]}"
    mine, theirs = (flatten(one.model_args) for one in (first, other))
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key) and not is_mutable(key) and key != FOLLOWS_SEQ_LEN:
            return f"model.{key} is {mine.get(key)} and {theirs.get(key)}"
    if bool(Lora.of(first.config).rank) != bool(Lora.of(other.config).rank):
        return "one trains adapters (lora.rank), the other whole weights"
    added = [one.config["tokenizer"]["new_special_tokens"] for one in (first, other)]
    return f"tokenizer.new_special_tokens is {added[0]} and {added[1]}" if added[0] != added[1] else ""


def _other_tokenizer(
    first: Module, other: Module, modules: Mapping[str, Module], tokenizers: Mapping[str, Path | None]
) -> str:
    mine, theirs = (_tokenizer(one, modules, tokenizers) for one in (first, other))
    if mine is not None and theirs is not None and mine != theirs:
        return f"their tokenizers are {mine} and {theirs}"
    return ""


def _tokenizer(module: Module, modules: Mapping[str, Module], tokenizers: Mapping[str, Path | None]) -> Path | None:
    """The tokenizer's folder: the module's own, or that of what it starts from; None if it isn't known."""
    if (own := tokenizers.get(module.name)) is not None or module.base is None:
        return own
    if module.base.folder is not None:
        return module.base.tokenizer
    return _tokenizer(modules[module.base.stage], modules, tokenizers)
