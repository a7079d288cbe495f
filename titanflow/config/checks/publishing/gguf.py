"""Refuses GGUF files of models that llama.cpp doesn't compute."""

from __future__ import annotations

from collections.abc import Mapping

from titanflow.architectures.families.registry import FAMILIES, family_of
from titanflow.common.errors import Problem
from titanflow.config.module import Module
from titanflow.config.stages import model_module, modules_of


def check_gguf(modules: Mapping[str, Module]) -> list[Problem]:
    """Mistakes in ``gguf`` of the publish modules."""
    return [problem for publish in modules_of("publish", modules) for problem in _check(publish, modules)]


def _check(publish: Module, modules: Mapping[str, Module]) -> list[Problem]:
    formats = publish.config["gguf"]
    if not formats:
        return []
    if len(set(formats)) < len(formats):
        return [publish.problem("gguf", f"found {', '.join(formats)}", "each format once")]
    trained = model_module(publish.config["model"], modules)
    if trained is None:
        return []
    family = trained.config["model"]["name"]
    if trained.model_args.get("moe_enabled"):
        family += " with experts"
    if family_of(family).llama_cpp:
        return []
    known = [name for name, one in FAMILIES.items() if one.llama_cpp]
    message = f"found {', '.join(formats)}, and no GGUF file was proved of the model family {family}"
    return [publish.problem("gguf", message, f"a model of {', '.join(known)}", f"leave {publish.name}.gguf out")]
