"""A base's weights in a model with more tokens: its rows first, then the mean of its rows for each new token.

The mean (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models") gives a new token about
the probability of the average one, where random rows would move every logit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torchtitan.components.checkpoint import MODEL

from titan.checkpoint import check_weights

if TYPE_CHECKING:
    from torchtitan.components.checkpoint import CheckpointManager

PER_TOKEN = ("tok_embeddings.weight", "output.weight")
"""The weights that have a row for each token, by torchtitan's names."""


def with_mean_rows(rows: torch.Tensor, count: int) -> torch.Tensor:
    """``rows`` ``[tokens, dim]`` followed by their mean, so that there are ``count``."""
    mean = rows.float().mean(0, keepdim=True).to(rows.dtype)
    return torch.cat([rows, mean.expand(count - len(rows), -1)])


def load_grown(checkpointer: CheckpointManager, model_parts: list[torch.nn.Module]) -> None:
    """Loads ``checkpoint.initial_load_path`` into a model that may have more rows for tokens than were saved.

    Each rank reads the old rows whole, and keeps its part of the new ones.

    Raises:
        ConfigError: the checkpoint isn't this model's in any other respect.
    """
    path, adapter = Path(checkpointer.initial_load_path or ""), checkpointer.sd_adapter
    in_hf = checkpointer.initial_load_in_hf
    assert adapter is not None or not in_hf
    state: dict[str, Any] = checkpointer.states[MODEL].state_dict()
    reader: Any = adapter.get_hf_storage_reader(str(path)) if in_hf and adapter else dcp.FileSystemReader(path)
    stored = reader.read_metadata().state_dict_metadata
    sizes = {key: value.shape[0] for key, value in state.items() if key in PER_TOKEN}
    old = {key: _rows(key, state[key], stored, adapter if in_hf else None) for key in sizes}
    small = {key: rows for key, rows in old.items() if rows is not None and len(rows) < sizes[key]}
    wanted = {key: value for key, value in {**state, **small}.items() if key not in old or old[key] is not None}
    if in_hf and adapter is not None:
        given = adapter.to_hf(wanted)
        dcp.load(given, storage_reader=reader)
        loaded = adapter.from_hf(given)
    else:
        check_weights(path, wanted)
        dcp.load(wanted, storage_reader=reader)
        loaded = wanted
    grown = {key: with_mean_rows(loaded[key], sizes[key]) for key in small}
    twins = {key for key, rows in old.items() if rows is None}
    rest = {key: value for key, value in loaded.items() if key not in grown and key not in twins}
    checkpointer.states[MODEL].load_state_dict(rest)
    for part in model_parts:
        own = {key: value for key, value in grown.items() if key in part.state_dict()}
        if own:
            set_model_state_dict(part, own, options=StateDictOptions(full_state_dict=True, strict=False))


def _rows(key: str, value: torch.Tensor, stored: Any, adapter: Any) -> torch.Tensor | None:
    """A tensor for a weight's rows as they were saved; None where the weight wasn't, being another one's twin."""
    name = next(iter(adapter.to_hf({key: value})), key) if adapter is not None else key
    if name not in stored:
        return None
    return torch.empty(stored[name].size[0], value.shape[1], dtype=value.dtype)
