"""A trained model on the CPU, as torchtitan itself computes it: what an export is made from and compared with.

A checkpoint's ``.metadata`` is a pickle, and loading it runs what it says: load only your own runs'.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from titanflow.checkpoints import TRAINING_STATE, complete_folders
from titanflow.errors import DataError, Problem, StageFailed
from titanflow.families import OWN_FAMILIES

if TYPE_CHECKING:
    from titan.disk_tensors import DiskTensors


def train_spec(model_name: str) -> Any:
    """The ``TrainSpec`` of a model family, torchtitan's or this project's, on any machine."""
    from titan.patches import apply_patches

    apply_patches(["cpu_device", "experts_on_cpu", "deepseek_args", "deepseek_yarn", "llama4_adapter"])
    from torchtitan.protocols.train_spec import get_train_spec

    if model_name in OWN_FAMILIES:
        importlib.import_module(OWN_FAMILIES[model_name])

    return get_train_spec(model_name)


def model_args_from(model_name: str, values: Mapping[str, Any]) -> Any:
    """A family's ``ModelArgs`` from a mapping such as a result's ``model_args``; nested dataclasses included.

    Raises:
        DataError: a key that the installed torchtitan's class doesn't have.
    """
    default = next(iter(train_spec(model_name).model_args.values()))
    return _build(type(default), values, model_name)


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise DataError(Problem(f"{kind.__name__!r} has no field {unknown[0]!r}", key=where))
    built = {
        key: _build(nested, value, f"{where}.{key}")
        if isinstance(value, Mapping) and (nested := _nested(kind, key)) is not None
        else value
        for key, value in values.items()
    }
    return kind(**built)


def _nested(kind: type, field: str) -> type | None:
    """The dataclass that a field may hold, also where the default is none, as llama4's ``rope_scaling_args``."""
    hint = get_type_hints(kind)[field]
    return next(
        (one for one in (hint, *get_args(hint)) if isinstance(one, type) and dataclasses.is_dataclass(one)), None
    )


def newest_checkpoint(folder: Path) -> Path:
    """The newest complete checkpoint of a ``checkpoint/`` folder: ``step-N`` with its ``.metadata``.

    Raises:
        DataError: there is none.
    """
    steps = complete_folders(folder)
    if not steps:
        raise DataError(Problem("no complete checkpoint", origin=str(folder), expected="step-N with a .metadata"))
    return next(iter(steps.values()))


def load_native(
    checkpoint: Path, model_name: str, args: Any, max_position_embeddings: int, disk: DiskTensors | None = None
) -> Any:
    """Builds the native model in fp32 on the CPU and loads a distributed checkpoint into it.

    Needs no process group, whatever number of ranks wrote the checkpoint. Attention is plain causal SDPA, as in
    the exported model; on one document that is what every ``attn_type`` computes.

    A LoRA stage's checkpoint gives its base's weights with the stage's own adapters beside them, not merged.

    Args:
        checkpoint: a ``step-N`` folder.
        model_name: torchtitan's name of the family.
        args: its ``ModelArgs``; not changed.
        max_position_embeddings: positions to precompute RoPE for.
        disk: where the weights are to lie; in memory unless given.

    Raises:
        ConfigError: a LoRA stage's base isn't there, or isn't the one that it was trained on.
        DataError: there is no checkpoint there.
        StageFailed: the checkpoint's keys or shapes aren't the model's.
    """
    import torch

    from titan.disk_tensors import OnDisk
    from titan.hf_tensors import from_folder
    from titan.lora import add_adapters
    from titan.lora_weights import (
        adapter_sized,
        check_adapter,
        held_whole,
        load_quietly,
        merge_adapter,
        weights_of,
        whole_sized,
    )
    from titanflow.hf_base import is_hugging_face

    if not (checkpoint / ".metadata").is_file():
        raise DataError(
            Problem("no distributed checkpoint", origin=str(checkpoint), expected="a step-N folder with .metadata")
        )
    args = dataclasses.replace(args, attn_type="sdpa", attn_mask_type="causal", max_seq_len=max_position_embeddings)
    with torch.device("cpu"), nullcontext() if disk is None else OnDisk(disk):
        model = train_spec(model_name).model_cls(args).float().eval()
    weights = weights_of(checkpoint)
    own, to_transformers = model.state_dict(), train_spec(model_name).state_dict_adapter(args, None)
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
    for adapter in weights.adapters[-1:]:
        state = adapter_sized(state, own, adapter)
        trained = check_adapter(adapter, state)
        add_adapters(model, adapter.settings)
        adapted = model.state_dict()
        load_quietly({key: adapted[key] for key in trained}, adapter.checkpoint)
    return model


def stored_model(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of what a checkpoint holds of the model, by key."""
    from torch.distributed import checkpoint as dcp

    metadata = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    return {
        key: tuple(getattr(item, "size", ()))
        for key, item in metadata.items()
        if key.split(".")[0] not in TRAINING_STATE
    }


def _compare_keys(
    checkpoint: Path,
    stored: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    optional: set[str],
) -> None:
    """Refuses a checkpoint that lacks a weight, has one too many, or one of another shape."""
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
