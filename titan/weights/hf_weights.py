"""Checks that a folder of safetensors holds exactly a model's weights: torchtitan loads what fits, silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from titan.weights.stored_weights import differences, refuse_other
from titanflow.architectures.huggingface import check_weights_there, weight_files

COMPUTED = "rotary_emb.inv_freq"
"""A buffer that old checkpoints of llama hold; it follows from RoPE's parameters."""
HEAD = "lm_head.weight"


def check_hf_weights(folder: Path, spec: Any, model_args: Any) -> None:
    """Compares names and shapes of a folder's weights with those of the model of a family's ``TrainSpec``.

    Raises:
        ConfigError: a file is missing, or a weight is missing, too many, twice there, or of another shape.
    """
    stored, twice = stored_shapes(folder)
    with torch.device("meta"):
        model = spec.model_cls(model_args)
    adapter = spec.state_dict_adapter(model_args, None)
    wanted = {key: tuple(value.shape) for key, value in adapter.to_hf(model.state_dict()).items()}
    if getattr(model_args, "enable_weight_tying", False):
        stored.pop(HEAD, None)
    found = "the weights aren't those that config.json describes"
    hint = "load and save the model with transformers, and look for its warnings"
    refuse_other([*twice, *differences(stored, wanted)], folder, found, hint)


def stored_shapes(folder: Path) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The shape of each weight in the folder, by its name, and a clause for each that is there twice."""
    check_weights_there(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    twice = []
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  (no mapping)
                if COMPUTED in key:
                    continue
                if key in shapes:
                    twice.append(f"has {key} twice, once in {path.name}")
                shapes[key] = tuple(file.get_slice(key).get_shape())
    return shapes, twice
