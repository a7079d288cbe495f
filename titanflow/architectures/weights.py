"""The shape of every weight of a model, by its name in torchtitan, and the modules that the weights belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from titanflow.architectures.blocks import EMBEDDINGS, HEAD, Args, Shapes
from titanflow.architectures.families.registry import family_of


def model_weights(family: str, args: Args) -> Shapes | None:
    """A model's weights, name → shape; None for a family whose layers aren't known here.

    ``args`` are all of the model's arguments. With ``enable_weight_tying`` the output head is left out.
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
    """The names of a model's linear layers, and of its other modules with weights; empty if they aren't known.

    ``model_args`` are all of the model's arguments.
    """
    shapes = model_weights(family, model_args)
    return ([], []) if shapes is None else named_modules(shapes)


def named_modules(shapes: Shapes) -> tuple[list[str], list[str]]:
    """The linear layers, the output head included even if it is tied, and the other modules with weights."""
    linears = dict.fromkeys([*linear_layers(shapes), HEAD])
    owners = dict.fromkeys(name.rpartition(".")[0] for name in shapes)
    return list(linears), [name for name in owners if name not in linears]


def linear_layers(shapes: Shapes) -> list[str]:
    """The names of a model's linear layers, the output head only if it has a weight of its own."""
    return [
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and name != f"{EMBEDDINGS}.weight"
    ]


def linear_shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    """(out, in) of a linear layer; a tied output head has the embeddings' weight."""
    return shapes.get(f"{name}.weight") or shapes[f"{EMBEDDINGS}.weight"]


def is_hidden_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a weight is a matrix of a layer, or one for each expert: Muon steps these and no others.

    Embeddings and the output head lie outside the layers. A single row or column is a vector.
    """
    if not name.startswith("layers.") or "bias" in name.rpartition(".")[2]:
        return False
    return len(shape) in (2, 3) and min(shape[-2:]) > 1


def without_layer(name: str) -> str:
    """``layers.3.attention.wq`` → ``attention.wq``."""
    parts = name.split(".")
    return ".".join(parts[2:]) if parts[0] == "layers" and len(parts) > 2 else name
