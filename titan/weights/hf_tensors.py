"""Renames weights between torchtitan and transformers, a layer at a time.

A state dict adapter reorders rows, splits and joins experts, and returns copies: for a whole model they would fill
memory a second time. No adapter needs more than one layer at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from titanflow.architectures.huggingface import weight_files

LAYER = re.compile(r"(.*?\blayers\.\d+)\.")
EMBEDDING = "tok_embeddings.weight"
"""With tied embeddings, an adapter makes the output layer from it and asks for it in each state dict."""

State = Mapping[str, Any]


def to_hugging_face(weights: State, adapter: Any) -> Iterator[tuple[str, Any]]:
    """The weights by transformers' names, in the order of the model."""
    for layer in _layers(weights):
        yield from adapter.to_hf(layer).items()


def from_folder(folder: Path, wanted: State, adapter: Any) -> Iterator[tuple[str, Any | None]]:
    """The weights in a folder by native name; None for what it doesn't hold.

    Its files are mapped into memory, not read into it. ``wanted`` has tensors of the native names and shapes.
    """
    from safetensors.torch import load_file

    stored = {key: value for path in weight_files(folder) for key, value in load_file(path).items()}
    always = set(adapter.to_hf(_without_values({EMBEDDING: wanted[EMBEDDING]})))
    for layer in _layers(wanted):
        names = always | set(adapter.to_hf(_without_values(layer)))
        native = adapter.from_hf({name: stored[name] for name in sorted(names & stored.keys())})
        yield from ((key, native.get(key)) for key in layer)


def _layers(weights: State) -> Iterator[dict[str, Any]]:
    for _, keys in groupby(weights, lambda key: found[1] if (found := LAYER.match(key)) else ""):
        yield {key: weights[key] for key in keys}


def _without_values(weights: State) -> dict[str, Any]:
    import torch

    return {key: torch.empty_like(value, device="meta") for key, value in weights.items()}
