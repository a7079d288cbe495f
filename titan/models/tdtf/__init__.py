"""TDTF (arXiv:2511.21408, there STT) on Qwen2.5: ``experimental.custom_import: titan.models.tdtf``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torchtitan.protocols.train_spec import get_train_spec, register_train_spec

from titan.models.dynamic.parallelize import parallelize_routed
from titan.models.huggingface import HuggingFaceModel, register_hugging_face_model
from titan.models.qwen2 import FLAVORS, qwen2_settings

from .model.args import TdtfModelArgs
from .model.model import TdtfModel
from .model.state_dict_adapter import TdtfStateDictAdapter

tdtf_args = {name: TdtfModelArgs(**flavor) for name, flavor in FLAVORS.items()}


def make_tdtf_config(args: TdtfModelArgs, common: dict[str, Any]) -> Any:
    from titan.models.remote_code.modeling_tdtf import TdtfConfig

    return TdtfConfig(
        **qwen2_settings(args, common),
        prior_factor=args.prior_factor,
        moving_average_window=args.moving_average_window,
    )


register_train_spec(
    "tdtf",
    replace(
        get_train_spec("qwen2"),
        model_cls=TdtfModel,
        model_args=tdtf_args,
        parallelize_fn=parallelize_routed,
        pipelining_fn=None,
        state_dict_adapter=TdtfStateDictAdapter,
    ),
)
register_hugging_face_model(
    "tdtf", HuggingFaceModel("TdtfForCausalLM", make_tdtf_config, module="titan.models.remote_code.modeling_tdtf")
)
