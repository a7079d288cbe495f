"""Every weight of a model by its name in torchtitan, with its shape, and the modules that these belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titanflow.architectures.blocks import EMBEDDINGS, HEAD, Args, Shapes
from titanflow.architectures.families.registry import family_of


def model_weights(family: str, args: Args) -> Shapes | None:
    """A model's weights, name → shape; None for a family whose layers aren't known here.

    The output head is left out where it is the embedding (``enable_weight_tying``).

    Args:
        family: torchtitan's name, as in ``model.name``.
        args: the model's arguments, all of them.
    """
    block = family_of(family).block
    if block is None or not args:
        return None
    dim, vocabulary = args["dim"], args["vocab_size"]
    shapes: Shapes = {f"{EMBEDDINGS}.weight": (vocabulary, dim)}
    for layer in range(args["n_layers"]):
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in block(args, layer).items()}
    shapes["norm.weight"] = (dim,)
    if not args.get("enable_weight_tying"):
        shapes[f"{HEAD}.weight"] = (vocabulary, dim)
    return shapes


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
