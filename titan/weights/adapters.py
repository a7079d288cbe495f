"""Loads a stage's weights: the whole model, with the adapters of each LoRA stage since merged into it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torchtitan.components.checkpoint import ModelWrapper

from titan.models.lora import A, B, is_adapter, local, plain_name, shard_slices
from titan.weights.checkpoint import check_weights
from titan.weights.grown_weights import (
    PER_TOKEN,
    State,
    rows_for_tokens,
    set_grown,
    stored_rows,
    tied_as_one,
    with_mean_rows,
    with_rows,
)
from titan.weights.stage_model import Adapter, Weights, load_quietly
from titanflow.architectures.huggingface import is_hugging_face
from titanflow.config.checks.lora import scaling
from titanflow.runs.checkpoints import differences, refuse_other


class TrainedState(ModelWrapper):
    """The model's part of a LoRA stage's checkpoints: adapters and the modules to save, no frozen weights."""

    def _get_state_dict(self) -> dict[str, Any]:
        options = StateDictOptions(ignore_frozen_params=True)
        states = [get_model_state_dict(part, options=options) for part in self.model]
        # A tied weight has two names, and torch leaves a frozen one out under one of them alone.
        named = (item for part in self.model for item in part.named_parameters(remove_duplicate=False))
        frozen = {plain_name(name) for name, parameter in named if not parameter.requires_grad}
        return {key: value for state in states for key, value in state.items() if key not in frozen}


def load_weights(model_parts: list[nn.Module], weights: Weights, to_transformers: Any, *, grows: bool = False) -> None:
    """Loads a model's own weights, adapters merged, into the (sharded) model; its own adapters stay as they are.

    ``to_transformers`` is the family's state dict adapter, for a folder in transformers' format. With ``grows`` the
    model may have more rows for tokens than were saved (:mod:`titan.weights.grown_weights`).

    Raises:
        ConfigError: a checkpoint isn't this model's.
    """
    wrapper = ModelWrapper(model_parts)
    own = {key: value for key, value in wrapper.state_dict().items() if not is_adapter(key)}
    state = whole_sized(own, weights, to_transformers, set(PER_TOKEN) if grows else held_whole(own, weights))
    if is_hugging_face(weights.whole):
        state = tied_as_one(read_hugging_face(state, weights.whole, to_transformers), own)
    else:
        check_weights(weights.whole, state)
        weights.load_whole(state)
    for adapter in weights.adapters:
        state = adapter_sized(state, own, adapter)
        merge_adapter(state, adapter)
    fewer = {key: state.pop(key) for key in PER_TOKEN if key in state and state[key].shape != own[key].shape}
    wrapper.load_state_dict(state)
    set_grown(model_parts, {key: with_mean_rows(rows, own[key].shape[0]) for key, rows in fewer.items()})


def held_whole(own: State, weights: Weights) -> set[str]:
    """The weights with a row for each token that an adapter's checkpoint holds whole; its base's are replaced."""
    return {key for one in weights.adapters for key in rows_for_tokens(own, one.stored)}


def whole_sized(own: State, weights: Weights, to_transformers: Any, free: set[str]) -> dict[str, torch.Tensor]:
    """Tensors to load the whole model below the adapters into: the model's own, or a new one for a weight in ``free``
    that was saved with other rows for tokens.
    """
    if is_hugging_face(weights.whole):
        stored = stored_rows(own, weights.whole, to_transformers)
    else:
        stored = rows_for_tokens(own, weights.stored)
    return with_rows(own, own, {key: rows for key, rows in stored.items() if key in free})


def adapter_sized(state: State, own: State, adapter: Adapter) -> dict[str, torch.Tensor]:
    """The state, with tensors sized for the rows that an adapter's checkpoint holds whole."""
    return with_rows(state, own, rows_for_tokens(own, adapter.stored))


def read_hugging_face(state: State, folder: Path, to_transformers: Any) -> dict[str, torch.Tensor]:
    """A transformers folder's weights by native name, each sharded like its namesake in ``state``."""
    stored = to_transformers.to_hf(dict(state))
    load_quietly(stored, folder, to_transformers.get_hf_storage_reader(str(folder)))
    return to_transformers.from_hf(stored)


def merge_adapter(state: State, adapter: Adapter) -> None:
    """Adds a checkpoint's adapters to the weights in ``state``, in place, and takes the modules that it saved."""
    check_adapter(adapter, state)
    stored = adapter.stored
    own = {key: state[key] for key in stored if not is_adapter(key)}
    pairs = {key: torch.empty(size) for key, size in stored.items() if is_adapter(key)}
    adapter.load({**own, **pairs})
    factor = scaling(adapter.settings)
    for name in adapted_names(stored):
        weight = state[f"{name}.weight"]
        rows, columns = shard_slices(weight)
        update = factor * (pairs[f"{name}.{B}"][rows] @ pairs[f"{name}.{A}"][:, columns])
        with torch.no_grad():
            shard = local(weight)
            shard.copy_(shard.float() + update.to(shard.device))


def adapted_names(keys: Iterable[str]) -> list[str]:
    return [key.removesuffix(f".{A}") for key in keys if key.endswith(f".{A}")]


def check_adapter(adapter: Adapter, state: State) -> None:
    """Refuses a LoRA stage's checkpoint that doesn't fit the model's weights ``state``."""
    stored, rank = adapter.stored, adapter.settings.rank
    names = adapted_names(stored)
    wanted = {key: tuple(state[key].shape) for key in stored if key in state}
    for name in names:
        weight = state.get(f"{name}.weight")
        if weight is not None:
            wanted |= {f"{name}.{A}": (rank, weight.shape[1]), f"{name}.{B}": (weight.shape[0], rank)}
    clauses = differences(stored, wanted) if names else ["has none"]
    hint = "the stage's run.yaml has to be the one that it was trained with"
    refuse_other(clauses, adapter.checkpoint, f"no adapters of rank {rank} for this model", hint)
