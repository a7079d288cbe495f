"""Mixture-of-Depths (arXiv:2404.02258) on Qwen2.5: ``experimental.custom_import: titan.models.mod``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torchtitan.protocols.train_spec import get_train_spec, register_train_spec

from titan.models.dynamic.parallelize import parallelize_routed
from titan.models.huggingface import HuggingFaceModel, register_hugging_face_model
from titan.models.qwen2 import FLAVORS, qwen2_settings

from .model.args import ModModelArgs
from .model.model import ModModel
from .model.state_dict_adapter import ModStateDictAdapter

mod_args = {name: ModModelArgs(**flavor) for name, flavor in FLAVORS.items()}


def make_mod_config(args: ModModelArgs, common: dict[str, Any]) -> Any:
    from titan.models.remote_code.modeling_mod import ModConfig

    return ModConfig(**qwen2_settings(args, common), route_every=args.route_every, causal_router=args.causal_router)


register_train_spec(
    "mod",
    replace(
        get_train_spec("qwen2"),
        model_cls=ModModel,
        model_args=mod_args,
        parallelize_fn=parallelize_routed,
        pipelining_fn=None,
        state_dict_adapter=ModStateDictAdapter,
    ),
)
register_hugging_face_model(
    "mod", HuggingFaceModel("ModForCausalLM", make_mod_config, module="titan.models.remote_code.modeling_mod")
)
