"""Registers a family with routed layers: a Qwen2.5 whose model, weights and config have more in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torchtitan.protocols.train_spec import get_train_spec, register_train_spec

from titan.models.huggingface import HuggingFaceModel, register_hugging_face_model
from titan.models.qwen2 import qwen2_settings
from titan.models.qwen2.model.state_dict_adapter import Qwen2StateDictAdapter
from titanflow.architectures.families.registry import ARCHITECTURES

from .args import RoutedModelArgs
from .model import DynamicModel
from .parallelize import parallelize_routed


def register_routed(
    family: str,
    model_cls: type[DynamicModel],
    model_args: dict[str, RoutedModelArgs],
    adapter: type[Qwen2StateDictAdapter],
    settings: Sequence[str],
) -> None:
    """``settings`` are the arguments that the family's config has beside Qwen2.5's."""

    def make_config(args: RoutedModelArgs, common: dict[str, Any]) -> Any:
        own = {name: getattr(args, name) for name in settings}
        return model.model_class().config_class(**qwen2_settings(args, common), **own)

    model = HuggingFaceModel(ARCHITECTURES[family], make_config, f"titan.models.remote_code.modeling_{family}")
    spec = replace(
        get_train_spec("qwen2"),
        model_cls=model_cls,
        model_args=model_args,
        parallelize_fn=parallelize_routed,
        pipelining_fn=None,
        state_dict_adapter=adapter,
    )
    register_train_spec(family, spec)
    register_hugging_face_model(family, model)
