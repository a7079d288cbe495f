"""A trained model on the CPU, as torchtitan computes it: exports are made from it and compared with it.

A checkpoint's ``.metadata`` is a pickle, which may run any code: load only your own runs'.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from titanflow.common.errors import DataError, Problem, StageFailed
from titanflow.runs.checkpoints import differences, refuse_other

if TYPE_CHECKING:
    from titan.weights.disk_tensors import DiskTensors
    from titan.weights.stage_model import TrainedModel


def load_native(model: TrainedModel, disk: DiskTensors | None = None) -> Any:
    """Builds the native model in fp32 on the CPU and loads a stage's weights into it.

    Needs no process group, however many ranks wrote the checkpoint. Attention is plain causal SDPA, as in the
    exported model; on one document that is what every ``attn_type`` computes. RoPE is computed for ``seq_len``
    positions. The weights lie in memory unless ``disk`` is given.

    A LoRA stage's checkpoint gives its base's weights with the stage's own adapters beside them, not merged.

    Raises:
        ConfigError: the checkpoint isn't this model's.
        DataError: there is no checkpoint there.
        StageFailed: a base in transformers' format lacks a weight.
    """
    import torch

    from titan.models.lora import add_adapters
    from titan.weights import adapters
    from titan.weights.disk_tensors import OnDisk
    from titan.weights.hf_folder import from_folder
    from titanflow.architectures.huggingface import is_hugging_face

    weights, checkpoint = model.weights, model.weights.checkpoint
    if not (checkpoint / ".metadata").is_file():
        expected = "a step-N folder with .metadata"
        raise DataError(Problem("no distributed checkpoint", origin=str(checkpoint), expected=expected))
    args = dataclasses.replace(model.args, attn_type="sdpa", attn_mask_type="causal", max_seq_len=model.seq_len)
    model_cls = model.spec.model_cls
    with torch.device("cpu"), nullcontext() if disk is None else OnDisk(disk):
        native = model_cls(args).float().eval()
    own = native.state_dict()
    state = adapters.whole_sized(own, weights, model.to_transformers, adapters.held_whole(own, weights))
    if is_hugging_face(weights.whole):
        for key, value in from_folder(weights.whole, state, model.to_transformers):
            if value is None:
                raise StageFailed(f"{weights.whole}: the base of {checkpoint} lacks {key}")
            state[key].copy_(value)
    else:
        # Of a tied weight's two names one is enough.
        spare = {"output.weight"} - set(weights.stored) if getattr(args, "enable_weight_tying", False) else set()
        wanted = {key: tuple(value.shape) for key, value in state.items() if key not in spare}
        refuse_other(differences(weights.stored, wanted), weights.whole)
        weights.load_whole({key: value for key, value in state.items() if key in weights.stored})
    for adapter in weights.adapters[:-1]:
        state = adapters.adapter_sized(state, own, adapter)
        adapters.merge_adapter(state, adapter)
    # The last adapter is the stage's own, which isn't merged.
    for adapter in weights.adapters[-1:]:
        state = adapters.adapter_sized(state, own, adapter)
        adapters.check_adapter(adapter, state)
        add_adapters(native, adapter.settings)
        adapted = native.state_dict()
        adapter.load({key: adapted[key] for key in adapter.stored})
    return native
