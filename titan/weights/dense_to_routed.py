"""A dense model's weights in a model with routed layers: shared ones are copied, new ones named and drawn.

``checkpoint.initial_load_path`` names the dense model: a ``step-N`` folder, the folder of a finished stage, or with
``checkpoint.initial_load_in_hf`` a folder that transformers loads.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torchtitan.tools.logging import logger

from titan.weights.adapters import read_hugging_face
from titan.weights.hf_folder import HEAD, stored_shapes
from titan.weights.stage_model import load_quietly
from titanflow.architectures.base import BaseArchitecture
from titanflow.architectures.outside_base import trained_as
from titanflow.runs.checkpoints import differences, refuse_other, stored_model

KEY = "checkpoint.initial_load_path"


def load_dense(model: nn.Module, state: dict[str, Any], path: Path, adapter: Any, new_modules: Iterable[str]) -> bool:
    """Copies a dense model's weights; returns False, with nothing changed, if the weights have routers.

    ``model`` may be sharded, and ``state`` is its state dict. ``adapter`` is the family's state dict adapter, for a
    folder in transformers' format; ``new_modules`` names the modules that a dense model lacks.

    Raises:
        ConfigError: the weights aren't those of a dense model with these arguments.
    """
    base = trained_as(path)
    in_hf = base is not None and base.in_hf
    new = {name for name in state if set(name.split(".")) & set(new_modules)}
    shared = {name: value for name, value in state.items() if name not in new}
    stored, twice = stored_shapes(path) if in_hf else (stored_model(path), [])
    if not in_hf and new & set(stored):
        return False
    wanted = {name: tuple(value.shape) for name, value in (adapter.to_hf(shared) if in_hf else shared).items()}
    if getattr(model.model_args, "enable_weight_tying", False):
        stored.pop(HEAD, None)
    clauses = [*twice, *_other_arguments(base, model.model_args), *differences(stored, wanted)]
    found, hint = (
        "the weights aren't those of this model without its routers",
        "take the flavor and the arguments of the dense model",
    )
    refuse_other(clauses, path, found, hint, KEY)
    loaded = read_hugging_face(shared, path, adapter) if in_hf else shared
    if not in_hf:
        load_quietly(loaded, path)
    set_model_state_dict(model, loaded, options=StateDictOptions(strict=False))
    logger.info(f"Copied {len(shared)} tensors from {path}; new, and drawn: {_described(new, state)}")
    return True


def _other_arguments(base: BaseArchitecture | None, args: Any) -> list[str]:
    own = dataclasses.asdict(args)
    given = base.other_arguments(own) if base else {}
    return [f"was trained with {key}={value!r}, the model's is {own[key]!r}" for key, value in given.items()]


def _described(new: set[str], state: dict[str, Any]) -> str:
    """Names without the layer's number, and how many there are of each."""
    kinds = Counter(".".join("*" if part.isdigit() else part for part in name.split(".")) for name in sorted(new))
    parameters = sum(state[name].numel() for name in new)
    return f"{', '.join(f'{kind} ({count})' for kind, count in kinds.items())}: {parameters:,} parameters"
