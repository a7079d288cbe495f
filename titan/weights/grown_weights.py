"""A base's weights in a model with more tokens: its rows first, then the mean of its rows for each new token.

The mean (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models") gives a new token about
the average token's probability; random rows would move every logit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from titan.models.lora import local

State = Mapping[str, torch.Tensor]
EMBEDDING = "tok_embeddings.weight"
PER_TOKEN = (EMBEDDING, "output.weight")
"""The weights that have a row for each token, by torchtitan's names."""


def with_mean_rows(rows: torch.Tensor, count: int) -> torch.Tensor:
    """``rows`` ``[tokens, dim]`` followed by their mean, so that there are ``count``."""
    mean = rows.float().mean(0, keepdim=True).to(rows.dtype)
    return torch.cat([rows, mean.expand(count - len(rows), -1)])


def stored_rows(own: State, folder: Path, to_transformers: Any) -> dict[str, int]:
    """How many rows for tokens a folder in transformers' format has, by native name.

    A folder with tied weights may have only one of the two names.
    """
    stored = to_transformers.get_hf_storage_reader(str(folder)).read_metadata().state_dict_metadata
    rows = {
        key: stored[name].size[0]
        for key in own.keys() & set(PER_TOKEN)
        for name in to_transformers.to_hf({key: own[key]})
        if name in stored
    }
    return dict.fromkeys(own.keys() & set(PER_TOKEN), min(rows.values())) | rows if rows else {}


def rows_for_tokens(own: State, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The rows for tokens in these stored shapes; a tied weight counts by both names, also where one was saved."""
    rows = {key: sizes[key][0] for key in PER_TOKEN if key in sizes}
    return dict.fromkeys(PER_TOKEN, *rows.values()) if len(rows) == 1 and is_tied(own) else rows


def is_tied(own: State) -> bool:
    """Whether embeddings and output head are one tensor in a model's state."""
    return own.keys() >= set(PER_TOKEN) and len({local(own[key]).data_ptr() for key in PER_TOKEN}) == 1


def with_rows(state: State, own: State, rows: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """The state, where each weight named in ``rows`` has so many: the model's own tensor if it does, otherwise an empty
    one, whole on each rank. Tied weights share one.
    """
    sized = {
        key: own[key] if own[key].shape[0] == count else torch.empty(count, own[key].shape[1], dtype=own[key].dtype)
        for key, count in rows.items()
        if key in own and state[key].shape[0] != count
    }
    return tied_as_one({**state, **sized}, own)


def tied_as_one(state: State, own: State) -> dict[str, torch.Tensor]:
    return {**state, PER_TOKEN[1]: state[EMBEDDING]} if is_tied(own) else dict(state)


def set_grown(model_parts: list[torch.nn.Module], grown: Mapping[str, torch.Tensor]) -> None:
    """Sets weights of the (sharded) model from tensors that each rank has whole."""
    for part in model_parts:
        own = {key: value for key, value in grown.items() if key in part.state_dict()}
        if own:
            set_model_state_dict(part, own, options=StateDictOptions(full_state_dict=True, strict=False))
