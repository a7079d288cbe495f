"""DTF (arXiv:2511.21408, there SDT) on Qwen2.5: ``experimental.custom_import: titan.models.dtf``."""

from __future__ import annotations

from typing import Any

from torchtitan.components.loss import build_cross_entropy_loss
from torchtitan.components.lr_scheduler import build_lr_schedulers
from torchtitan.components.optimizer import build_optimizers
from torchtitan.components.tokenizer import build_hf_tokenizer
from torchtitan.components.validate import build_validator
from torchtitan.hf_datasets.text_datasets import build_text_dataloader
from torchtitan.protocols.train_spec import TrainSpec, register_train_spec

from titan.hf_models import HuggingFaceModel, register_hugging_face_model
from titan.models.qwen2 import FLAVORS, qwen2_settings

from .infra.parallelize import parallelize_dtf
from .model.args import DtfModelArgs
from .model.model import DtfModel
from .model.state_dict_adapter import DtfStateDictAdapter

dtf_args = {name: DtfModelArgs(**flavor) for name, flavor in FLAVORS.items()}


def make_dtf_config(args: DtfModelArgs, common: dict[str, Any]) -> Any:
    """The transformers config of a model."""
    from titan.models.remote_code.modeling_dtf import DtfConfig

    return DtfConfig(
        **qwen2_settings(args, common),
        prior_factor=args.prior_factor,
        moving_average_window=args.moving_average_window,
    )


register_train_spec(
    "dtf",
    TrainSpec(
        model_cls=DtfModel,
        model_args=dtf_args,
        parallelize_fn=parallelize_dtf,
        pipelining_fn=None,
        build_optimizers_fn=build_optimizers,
        build_lr_schedulers_fn=build_lr_schedulers,
        build_dataloader_fn=build_text_dataloader,
        build_tokenizer_fn=build_hf_tokenizer,
        build_loss_fn=build_cross_entropy_loss,
        build_validator_fn=build_validator,
        state_dict_adapter=DtfStateDictAdapter,
    ),
)
register_hugging_face_model(
    "dtf", HuggingFaceModel("DtfForCausalLM", make_dtf_config, module="titan.models.remote_code.modeling_dtf")
)
