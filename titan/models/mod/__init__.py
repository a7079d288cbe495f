"""Mixture-of-Depths (arXiv:2404.02258) on Qwen2.5: ``experimental.custom_import: titan.models.mod``."""

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

from .infra.parallelize import parallelize_mod
from .model.args import ModModelArgs
from .model.model import ModModel
from .model.state_dict_adapter import ModStateDictAdapter

mod_args = {name: ModModelArgs(**flavor) for name, flavor in FLAVORS.items()}


def make_mod_config(args: ModModelArgs, common: dict[str, Any]) -> Any:
    """The transformers config of a model."""
    from titan.models.remote_code.modeling_mod import ModConfig

    return ModConfig(**qwen2_settings(args, common), route_every=args.route_every)


register_train_spec(
    "mod",
    TrainSpec(
        model_cls=ModModel,
        model_args=mod_args,
        parallelize_fn=parallelize_mod,
        pipelining_fn=None,
        build_optimizers_fn=build_optimizers,
        build_lr_schedulers_fn=build_lr_schedulers,
        build_dataloader_fn=build_text_dataloader,
        build_tokenizer_fn=build_hf_tokenizer,
        build_loss_fn=build_cross_entropy_loss,
        build_validator_fn=build_validator,
        state_dict_adapter=ModStateDictAdapter,
    ),
)
register_hugging_face_model(
    "mod", HuggingFaceModel("ModForCausalLM", make_mod_config, module="titan.models.remote_code.modeling_mod")
)
