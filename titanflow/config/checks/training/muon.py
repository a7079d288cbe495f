"""Refuses Muon where it would have nothing to step; which weights a training trains."""

from __future__ import annotations

from titanflow.architectures.blocks import Shapes
from titanflow.architectures.weights import is_hidden_matrix, linear_shape, model_weights, named_modules
from titanflow.common.errors import Problem
from titanflow.config.checks.lora import find_modules
from titanflow.config.checks.model import argument_faults
from titanflow.config.keys.optimizer import MUON
from titanflow.config.keys.training import Lora
from titanflow.config.module import Module

ADAPTER = (".lora_a", ".lora_b")
"""The ends of the names of an adapter's two matrices."""


def trained_weights(shapes: Shapes, lora: Lora, tied: bool) -> Shapes:
    """The weights that a training changes: all of a model's, or with LoRA the adapters and the modules saved whole."""
    if not lora.rank:
        return shapes
    found, _ = find_modules(lora, *named_modules(shapes), tied)
    trained: Shapes = {}
    for name in found.targets:
        out, into = linear_shape(shapes, name)
        trained |= {f"{name}.lora_a": (lora.rank, into), f"{name}.lora_b": (out, lora.rank)}
    saved = tuple(f"{name}." for name in found.saved)
    return trained | {name: shape for name, shape in shapes.items() if name.startswith(saved)}


def check_muon(module: Module) -> list[Problem]:
    config, family = module.config, module.config["model"]["name"]
    if config["optimizer"]["name"] != MUON or argument_faults(family, module.model_args):
        return []
    shapes = model_weights(family, module.model_args)
    if shapes is None:
        return []
    trained = trained_weights(shapes, Lora.of(config), bool(module.model_args.get("enable_weight_tying")))
    if any(is_hidden_matrix(name, shape) for name, shape in trained.items()):
        return []
    found = "found Muon, and the stage trains no matrix of a layer"
    return [module.problem("optimizer.name", found, "AdamW", _why_none(trained) if config["lora"]["rank"] else "")]


def _why_none(trained: Shapes) -> str:
    if any(name.startswith("layers.") and name.endswith(ADAPTER) for name in trained):
        return "Muon steps the matrices of layers; an adapter of rank 1 is two vectors"
    return "Muon steps the matrices of layers, and lora.target_modules names nothing in a layer"


OF_TRAINING = (check_muon,)
