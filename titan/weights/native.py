"""A trained model on the CPU, as torchtitan computes it: exports are made from it and compared with it.

A checkpoint's ``.metadata`` is a pickle, which may run any code: load only your own runs'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titan.models.registry import train_spec
from titan.weights.stored_weights import stored_model
from titanflow.common.errors import DataError, Problem, StageFailed

if TYPE_CHECKING:
    from titan.weights.disk_tensors import DiskTensors

Shapes = Mapping[str, tuple[int, ...]]


def load_native(
    checkpoint: Path, model_name: str, args: Any, max_position_embeddings: int, disk: DiskTensors | None = None
) -> Any:
    """Builds the native model in fp32 on the CPU and loads a ``step-N`` folder into it.

    Needs no process group, however many ranks wrote the checkpoint. Attention is plain causal SDPA, as in the
    exported model; on one document that is what every ``attn_type`` computes. RoPE is computed for
    ``max_position_embeddings`` positions. ``args`` aren't changed. The weights lie in memory unless ``disk`` is given.

    A LoRA stage's checkpoint gives its base's weights with the stage's own adapters beside them, not merged.

    Raises:
        ConfigError: a LoRA stage's base isn't there, or isn't the one that it was trained on.
        DataError: there is no checkpoint there.
        StageFailed: the checkpoint's keys or shapes aren't the model's.
    """
    import torch

    from titan.models.lora import add_adapters
    from titan.weights.adapters import (
        adapter_sized,
        check_adapter,
        held_whole,
        load_quietly,
        merge_adapter,
        weights_of,
        whole_sized,
    )
    from titan.weights.disk_tensors import OnDisk
    from titan.weights.hf_tensors import from_folder
    from titanflow.architectures.huggingface import is_hugging_face

    if not (checkpoint / ".metadata").is_file():
        raise DataError(
            Problem("no distributed checkpoint", origin=str(checkpoint), expected="a step-N folder with .metadata")
        )
    args = dataclasses.replace(args, attn_type="sdpa", attn_mask_type="causal", max_seq_len=max_position_embeddings)
    spec = train_spec(model_name)
    with torch.device("cpu"), nullcontext() if disk is None else OnDisk(disk):
        model = spec.model_cls(args).float().eval()
    weights = weights_of(checkpoint)
    own, to_transformers = model.state_dict(), spec.state_dict_adapter(args, None)
    state = whole_sized(own, weights, to_transformers, held_whole(own, weights))
    if is_hugging_face(weights.whole):
        for key, value in from_folder(weights.whole, state, to_transformers):
            if value is None:
                raise StageFailed(f"{weights.whole}: the base of {checkpoint} lacks {key}")
            state[key].copy_(value)
    else:
        stored = stored_model(weights.whole)
        tied = {"output.weight"} if getattr(args, "enable_weight_tying", False) else set()
        _compare_keys(weights.whole, stored, {key: tuple(value.shape) for key, value in state.items()}, optional=tied)
        load_quietly({key: value for key, value in state.items() if key in stored}, weights.whole)
    for adapter in weights.adapters[:-1]:
        state = adapter_sized(state, own, adapter)
        merge_adapter(state, adapter)
    # The last adapter is the stage's own, which isn't merged.
    for adapter in weights.adapters[-1:]:
        state = adapter_sized(state, own, adapter)
        trained = check_adapter(adapter, state)
        add_adapters(model, adapter.settings)
        adapted = model.state_dict()
        load_quietly({key: adapted[key] for key in trained}, adapter.checkpoint)
    return model


def _compare_keys(checkpoint: Path, stored: Shapes, wanted: Shapes, optional: set[str]) -> None:
    missing = sorted(set(wanted) - set(stored) - optional)
    unexpected = sorted(set(stored) - set(wanted))
    other = [
        f"{key} is {stored[key]}, the model's {shape}"
        for key, shape in wanted.items()
        if stored.get(key, shape) != shape
    ]
    if missing or unexpected or other:
        raise StageFailed(
            f"{checkpoint}: the checkpoint isn't this model's: missing {missing or 'nothing'}, "
            f"unexpected {unexpected or 'nothing'}, other shapes {other or 'none'}. "
            "Export with the model arguments of the run that wrote it."
        )
