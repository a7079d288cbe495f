"""The names of a model's modules, as torchtitan has them; known without torch, so that a plan can check a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.architectures.weights import EMBEDDINGS, HEAD, Shapes, model_weights


def module_names(family: str, model_args: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names of a model's linear layers, and of its other modules with weights; empty where they aren't known.

    Args:
        family: torchtitan's name, as in ``model.name``.
        model_args: the model's arguments, of which a model can be built.
    """
    shapes = model_weights(family, model_args)
    return ([], []) if shapes is None else named_modules(shapes)


def named_modules(shapes: Shapes) -> tuple[list[str], list[str]]:
    """The linear layers and the other modules of a model with these weights.

    Tied or not, the output head is a linear layer by its name.
    """
    linears = dict.fromkeys([*linear_layers(shapes), HEAD])
    owners = dict.fromkeys(name.rpartition(".")[0] for name in shapes)
    return list(linears), [name for name in owners if name not in linears]


def linear_layers(shapes: Shapes) -> list[str]:
    """The names of a model's linear layers, the output head among them where it is a weight of its own."""
    return [
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and name != f"{EMBEDDINGS}.weight"
    ]


def without_layer(name: str) -> str:
    """``layers.3.attention.wq`` → ``attention.wq``."""
    parts = name.split(".")
    return ".".join(parts[2:]) if parts[0] == "layers" and len(parts) > 2 else name
