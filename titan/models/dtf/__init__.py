"""DTF (arXiv:2511.21408, there SDT) on Qwen2.5: ``experimental.custom_import: titan.models.dtf``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torchtitan.protocols.train_spec import get_train_spec, register_train_spec

from titan.models.dynamic.parallelize import parallelize_routed
from titan.models.huggingface import HuggingFaceModel, register_hugging_face_model
from titan.models.qwen2 import FLAVORS, qwen2_settings

from .model.args import DtfModelArgs
from .model.model import DtfModel
from .model.state_dict_adapter import DtfStateDictAdapter

dtf_args = {name: DtfModelArgs(**flavor) for name, flavor in FLAVORS.items()}


def make_dtf_config(args: DtfModelArgs, common: dict[str, Any]) -> Any:
    from titan.models.remote_code.modeling_dtf import DtfConfig

    return DtfConfig(
        **qwen2_settings(args, common),
        prior_factor=args.prior_factor,
        moving_average_window=args.moving_average_window,
        causal_router=args.causal_router,
    )


register_train_spec(
    "dtf",
    replace(
        get_train_spec("qwen2"),
        model_cls=DtfModel,
        model_args=dtf_args,
        parallelize_fn=parallelize_routed,
        pipelining_fn=None,
        state_dict_adapter=DtfStateDictAdapter,
    ),
)
register_hugging_face_model(
    "dtf", HuggingFaceModel("DtfForCausalLM", make_dtf_config, module="titan.models.remote_code.modeling_dtf")
)
