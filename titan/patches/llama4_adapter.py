"""Lets a llama4 be exported with all its weights."""

from __future__ import annotations

from titan.patches.patch import Patch, PatchContext


def needed() -> bool:
    from torchtitan.models.llama4.model.args import TransformerModelArgs
    from torchtitan.models.llama4.model.state_dict_adapter import Llama4StateDictAdapter

    names = Llama4StateDictAdapter(TransformerModelArgs(), None).from_hf_map.values()
    return not any(name.startswith("layers.{}.feed_forward.") for name in names)


def apply(context: PatchContext) -> None:
    from torchtitan.models import llama4

    from titan.models.llama4.adapter import Llama4TextStateDictAdapter

    llama4.Llama4StateDictAdapter = Llama4TextStateDictAdapter


PATCH = Patch(
    name="llama4_adapter",
    target="torchtitan.models.llama4.Llama4StateDictAdapter",
    what="an adapter that knows the dense layers, with the names of transformers' Llama4ForCausalLM",
    why=(
        "torchtitan's leaves out each layer without experts, silently, and has the names of the model with vision that "
        "surrounds the text's, so that what it writes is no Llama4ForCausalLM"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
